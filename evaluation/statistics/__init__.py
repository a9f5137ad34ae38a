"""Metrics of predictions, bootstrap intervals and label efficiency.

Pure numbers: no encoder, no file of a run but tables of predictions, no figure.
"""
