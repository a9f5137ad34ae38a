"""Conventions for a user's own images: class folders, masks, COCO boxes and tables.

No public dataset is described here.
"""
