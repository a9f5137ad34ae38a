"""CSV, W&B, TensorBoard and MLflow loggers, and log filters."""
