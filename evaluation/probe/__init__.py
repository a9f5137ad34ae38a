"""Frozen features, labelled subsets, predictors and the sweep over them.

Produces predictions; statistics and figures are made from them elsewhere.
"""
