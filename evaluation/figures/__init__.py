"""Figures of results, drawn with matplotlib.

They draw what they are given; reading a run's folder belongs in `report`.
"""
