"""Reading images, arrays, spreadsheets, annotations and publishers' folder layouts.

Formats only: what a particular dataset means by its files belongs in `public`.
"""
