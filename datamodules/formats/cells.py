"""Values in tables and annotation files: numbers, names, spellings; nothing here reads a file.

A function raises ValueError with what is wrong with a value; whoever read the value says where.
"""

import math
import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

# Spellings of a missing value, in small letters.
MISSING = frozenset({"", "-", "--", "?", "#n/a", "n/a", "na", "nan", "null", "#value!", "#ref!"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*(,\d+)+(\.\d+)?", re.ASCII)
_SPACE = re.compile(r"(?<!\d) | (?!\d)")
_WHOLE = re.compile(r"0*(\d+)(\.0*)?", re.ASCII)
_LONGEST = 60  # characters of a value in a message
_EXACT = 2**53  # beyond it, whole numbers are not exact in a float


def shown(value: object) -> str:
    r"""A value for a message: on one line and not too long.

    >>> shown("a" + chr(10) + "b")
    'a\\nb'
    """
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value)[: _LONGEST + 1])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def number(text: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A decimal number, finite and in a closed range.

    >>> number("0.25"), number("-3e2")
    (0.25, -300.0)
    """
    if not _NUMBER.fullmatch(text):
        if _COMMA.fullmatch(text):
            raise ValueError(f"'{shown(text)}' has a comma; write decimals with a point")
        raise ValueError(f"'{shown(text)}' is not a number")
    return in_range(float(text), low, high)


def in_range(value: float, low: float = -math.inf, high: float = math.inf) -> float:
    """A number, if it is finite and in a closed range."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    if not low <= value <= high:
        raise ValueError(f"{value:g} is out of range, expected {low:g} to {high:g}")
    return value


def whole(value: float) -> int:
    """A number without fraction, and not too large to be exact."""
    if value != int(value) or abs(value) > _EXACT:
        raise ValueError(f"{value:g} is not a whole number")
    return int(value)


def spelling(text: str) -> str:
    """What spellings of one name have in common.

    Letters without case and in one Unicode form, without invisible characters, and spaces only
    between digits; whole numbers without leading zeros and ".0".

    >>> spelling(" P7"), spelling("p 7"), spelling("7.0"), spelling("007")
    ('p7', 'p7', '7', '7')
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split())
    plain = _SPACE.sub("", plain)
    match = _WHOLE.fullmatch(plain)
    return match[1] if match else plain


def file_name(text: str, allow_outside: bool = False) -> str:
    r"""A file's name below a folder as a table gives it, in one form: a/b.png.

    It must not be empty nor hold control characters. Absolute names and ".." leave the folder.

    >>> file_name(".\\images\\a.png")
    'images/a.png'
    """
    path = PurePosixPath(name := text.strip().replace("\\", "/"))
    if not path.parts or not name.isprintable():
        raise ValueError(f"'{shown(text)}' is not the name of a file")
    leaves = path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(name).drive)
    if leaves and not allow_outside:
        raise ValueError(f"'{shown(text)}' leaves the dataset's folder")
    return str(path)
