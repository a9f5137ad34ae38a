"""The trained encoder without heads and training state: export, and loading it frozen."""
