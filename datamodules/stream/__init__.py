"""From rows of stores to training batches: order, augmentation and loaders.

The lowest wing that may import torch; only `transforms` imports albumentations.
"""
