"""Teacher scores as soft labels, losses, calibration and training."""
