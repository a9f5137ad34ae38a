"""Frozen features, label subsets, predictors and the sweep over them.

Produces predictions; statistics and figures are made of them elsewhere.
"""
