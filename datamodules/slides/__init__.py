"""Whole slides: opening their pyramids, finding tissue, cutting tiles at a resolution."""
