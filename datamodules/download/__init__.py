"""Fetching, verifying and unpacking publishers' archives, resumably.

Ends when the publisher's files lie in place; reading them is not done here.
"""
