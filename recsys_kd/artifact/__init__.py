"""The artifact on disk: manifest, atomic write, verified read. Imports no torch, pandas or pyarrow."""
