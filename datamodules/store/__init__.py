"""The prepared HDF5 store: tiling, validation, writing, reading and splits.

Depends on records and tasks, never on a publisher's layout, and needs no torch.
"""
