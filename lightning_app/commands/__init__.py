"""One module for each verb of the command line, and the tables they print.

A verb parses nothing and trains nothing itself: it calls what the other wings offer.
"""
