"""The prepared HDF5 store: cutting, validation, writing, reading and splits.

Knows records and tasks, never a publisher's layout, and needs no torch.
"""
