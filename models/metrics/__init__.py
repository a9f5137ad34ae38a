"""Metrics of each kind of task, accumulated over batches and ranks."""
