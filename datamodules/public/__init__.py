"""One module per public dataset: its facts, its reader and its synthetic copy.

A module here describes one dataset; behaviour that two of them share belongs further down.
"""
