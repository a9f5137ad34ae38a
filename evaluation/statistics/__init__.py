"""Metrics of predictions, bootstrap intervals and label efficiency.

Numbers only: no encoder, no figure, and no file of a run but tables of predictions.
"""
