"""What the LightningModule uses to train: optimizer, loss weighting, stain jitter and counters."""
