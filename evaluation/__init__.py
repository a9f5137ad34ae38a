"""Frozen-feature probes, their statistics and the report."""
