"""What damage may change in a store although nothing is told, and how that is checked.

A silent difference is lawful only where a row of `LAWFUL` names mutation, reader and file and its
check finds that nothing else differs than what the damaged files themselves say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.faults.checks import (
    Check,
    copied,
    exchanged,
    few,
    gone,
    one,
    one_split,
    pixels,
    points,
    regrouped,
    relabelled,
    renamed,
    same_elsewhere,
    ungrouped,
    union_less,
)
from tests.faults.difference import Difference


@dataclass(frozen=True)
class Lawful:
    """Differences that need no note, with the reason.

    Attributes:
        mutations: their names.
        readers: all where empty.
        files: regular expression that is found in the file's name.
        check: what holds for such a difference.
        reason: why nobody can see it.
    """

    mutations: tuple[str, ...]
    readers: tuple[str, ...]
    files: str
    check: Check
    reason: str


_POINTS = ("tupac16", "ocelot")
_TABLES = ("csv_table", "breastpathq", "conic", "glas", "lc25000", "pcam")
_TABLES += ("camelyon17", "lizard", "mhist", "unitopatho")
_JSONS = ("coco_boxes", "midogpp", "ocelot", "chaoyang")
_CUTS = ("truncate table", "drop line")
_NUMBERS = ("other number", "fraction", "out of range", "negative")
_NAMES = ("absolute path", "path upwards", "far negative", "no number", "huge number")
_CELLS = tuple(f"xlsx cell {name}" for name in ("label", "negative", "fraction", "too large"))
_PICTURE = r"\.(png|jpe?g|tiff?|bmp)$"

LAWFUL: tuple[Lawful, ...] = (
    Lawful(
        *(("flip bits",), (), r"\.(jpe?g|tiff?|bmp)$", pixels),
        "these formats have no checksum",
    ),
    Lawful(
        *(("other size", "grey", "CMYK", "1 bit"), (), _PICTURE, pixels),
        "another picture is a picture",
    ),
    Lawful(("swap contents",), (), "", exchanged, "no file says which name it should bear"),
    Lawful(("delete",), (), _PICTURE, gone, "no file says how many images there are"),
    Lawful(
        *(("delete", "rename ending", "dangling link", "looping link", "swap contents"),),
        *(("idc",), r"\.png$", same_elsewhere),
        "the archive holds its images twice",
    ),
    Lawful(("duplicate",), (), _PICTURE, copied, "no file says how many images there are"),
    Lawful(
        *(("delete",), ("dsb2018",), r"/masks/", union_less),
        "no file says how many masks, each of one nucleus, an image has",
    ),
    Lawful(
        *((*_CUTS, *_NUMBERS, "empty", "swap columns"), _POINTS, r"\.csv$", points),
        "a table of points has no header and states no length: any number is a place",
    ),
    Lawful(
        *((*_CUTS, *_NUMBERS, *_NAMES), _TABLES, r"\.csv$", one),
        "another valid value or another name of a patient is what the table says",
    ),
    Lawful(
        *(("JSON number", "JSON other type", "JSON drop"), _JSONS, r"\.json$", one),
        "another valid value is what the file says",
    ),
    Lawful(
        *(("delete", "rename ending"), ("lc25000", "pcam"), r"\.csv$", ungrouped),
        "the table of groups is optional",
    ),
    Lawful(
        ("XML number",),
        ("monuseg", "monusac"),
        r"\.xml$",
        one,
        "another place is what the file says",
    ),
    Lawful(
        *(("other number", "fraction", "flip bits"), ("lizard",), r"\.csv$", one_split),
        "another part is what the table says",
    ),
    Lawful(
        *(("swap contents",), ("crchisto",), r"\.mat$", relabelled),
        "no file says of which class its points are",
    ),
    Lawful(
        *(("delete", "rename ending", *_CELLS), ("bracs",), r"\.xlsx$", regrouped),
        "the table of patients is optional, and another patient is what it says",
    ),
    Lawful(("xlsx cell label",), ("sicapv2",), "", one, "a patch may have several labels"),
    Lawful(
        *(("flip bits",), (), r"\.(csv|json|xml|npy|h5|mat)$", few),
        "text and arrays have no checksum: another valid value is what the file says",
    ),
    Lawful(
        *(("flip bits", "JSON other type"), ("coco_boxes",), r"\.json$", renamed),
        "categories have the names that their owner gives them",
    ),
)


def reason_of(mutation: str, reader: str, difference: Difference) -> str:
    """Why a silent difference is lawful; empty where it is not."""
    for row in LAWFUL if difference.size else ():
        if (
            mutation in row.mutations
            and (not row.readers or reader in row.readers)
            and re.search(row.files, difference.file)
            and row.check(difference)
        ):
            return row.reason
    return ""
