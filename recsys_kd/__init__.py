"""Distil, compress, prove and serve e-commerce ranking models.

Importing the package loads nothing heavy: a serving host imports `recsys_kd.runtime` alone, without torch.
"""

__version__ = "0.1.0"
