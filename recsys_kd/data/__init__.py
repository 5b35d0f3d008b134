"""Logs in: validated Parquet rows, quarantine, id index, time split, streaming batches, synthetic shop, import."""
