"""Reading images, arrays, spreadsheets, annotations and publishers' folder layouts.

Formats only: what a particular dataset means by its files belongs in `public`.

Everywhere in here, a file that is not there is a DatasetNotFoundError, a picture that cannot be
read rightly an ImageError, and any other file that does not fit a LayoutError; messages name the
file and the place in it. Docstrings list only what is refused beyond what a format requires.
"""
