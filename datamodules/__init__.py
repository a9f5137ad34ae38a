"""Public histology datasets: readers, stores and the multi-task stream."""
