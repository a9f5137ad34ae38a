"""Checks of raw data and stores: verification, duplicates and shared sources.

They report findings and never change a dataset.
"""
