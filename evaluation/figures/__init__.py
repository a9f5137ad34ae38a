"""Figures of results, drawn with matplotlib.

Each function draws the results that it is given; none reads or writes files.
"""
