"""Parts of the training module: optimizer, loss weighting, stain jitter and step losses."""
