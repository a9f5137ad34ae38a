"""The network and its losses: encoder, neck, heads and the weights to start from.

Nothing here knows of Lightning, optimizers or logging.
"""
