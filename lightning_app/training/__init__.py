"""Building the Trainer, and turning its failures into one line of advice."""
