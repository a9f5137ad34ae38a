"""Errors, records, value ranges, progress and atomic files that every other wing builds on.

Nothing here depends on a dataset, a store or a file format.
"""
