"""Drawn tissue with exact ground truth, for the demo and the tests.

Draws scenes and forges datasets; the official layouts are written by the readers themselves.
"""
