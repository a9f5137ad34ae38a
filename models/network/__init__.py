"""The network and its losses: encoder, neck, heads and pretrained weights.

Nothing here depends on Lightning, optimizers or logging.
"""
