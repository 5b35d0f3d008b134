"""Metrics, intervals clustered by user, the gate, and the report."""
