"""The shared encoder, its heads, and the training module."""
