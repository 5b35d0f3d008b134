"""From a float student to int8 rows within a byte budget: plan, prune, fold, quantize."""
