"""The trained encoder on its own: export, and loading it frozen.

Heads and training state stay behind.
"""
