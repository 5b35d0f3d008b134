"""Versions, aliases and the audit log; nothing is published but through here."""
