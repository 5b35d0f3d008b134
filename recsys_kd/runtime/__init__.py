"""The torch-free scorer."""
