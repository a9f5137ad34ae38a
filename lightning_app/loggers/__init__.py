"""CSV, W&B and TensorBoard loggers, and log filters."""
