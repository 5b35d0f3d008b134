"""The night: one function per stage; the only place that joins rooms."""
