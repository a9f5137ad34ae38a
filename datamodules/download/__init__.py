"""Resumable download, verification and unpacking of publishers' archives.

The result is the publisher's files in place; they are read elsewhere.
"""
