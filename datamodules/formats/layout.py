"""Walking over publishers' folders: what several readers need, with errors that name the file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from datamodules.core.errors import ConfigError, DatasetNotFoundError, LayoutError
from datamodules.core.records import SPLITS
from datamodules.formats.images import list_images


def relative(root: Path, path: Path) -> str:
    """A file's name below the dataset's folder, the same on every system."""
    return path.relative_to(root).as_posix()


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, sorted by name, without hidden ones."""
    if not folder.is_dir():
        raise DatasetNotFoundError(f"{folder}: no such folder; the dataset keeps its data there")
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def class_images(
    root: Path, folder: Path, classes: Sequence[str], complete: bool = True
) -> Iterator[tuple[Path, int]]:
    """Images of `folder/<class>/`, class by class, with the class index.

    Args:
        root: the dataset's folder, for messages.
        folder: the folder that holds one folder per class.
        classes: names of the class folders in index order.
        complete: every class must be there.

    Raises:
        LayoutError: an unknown, empty or missing class folder.
    """
    present = [path.name for path in subfolders(folder)]
    unknown = [name for name in present if name not in classes]
    if unknown:
        raise LayoutError(
            f"{relative(root, folder)}/{unknown[0]}: not a class of this dataset; "
            f"expected {', '.join(classes)}"
        )
    missing = [name for name in classes if name not in present]
    if not present or (complete and missing):
        raise LayoutError(
            f"{relative(root, folder)}/{missing[0]}: no such class folder; fetch the data again"
        )
    for index, name in enumerate(classes):
        if name in present:
            for path in nonempty_images(root, folder / name):
                yield path, index


def nonempty_images(root: Path, folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted.

    Raises:
        LayoutError: there is none.
    """
    paths = list_images(folder)
    if not paths:
        raise LayoutError(f"{relative(root, folder)}: the folder holds no image")
    return paths


def read_table(
    root: Path, path: Path, columns: Sequence[str], delimiter: str = ","
) -> list[dict[str, str]]:
    """Rows of a CSV file with a header; names and values lose surrounding spaces.

    Args:
        root: the dataset's folder, for messages.
        path: the file.
        columns: columns that must exist, in whatever order.
        delimiter: what separates columns.

    Raises:
        DatasetNotFoundError: no such file.
        LayoutError: a column is missing or a row is short.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"{path}: no such file; it is part of the published dataset")
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter=delimiter)]
    header = lines[0] if lines else []
    missing = [name for name in columns if name not in header]
    if missing:
        raise LayoutError(
            f"{relative(root, path)}: no column '{missing[0]}'; found {', '.join(header) or 'none'}"
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        if len(line) < len(header):
            raise LayoutError(
                f"{relative(root, path)}, line {number}: {len(line)} values, expected {len(header)}"
            )
        rows.append(dict(zip(header, line, strict=False)))
    return rows


def named(pattern: re.Pattern[str], root: Path, path: Path, expected: str) -> re.Match[str]:
    """Match a file's name against the publisher's pattern.

    Raises:
        LayoutError: it does not fit; `expected` shows how names look.
    """
    match = pattern.fullmatch(path.name)
    if match is None:
        raise LayoutError(f"{relative(root, path)}: unexpected name; expected {expected}")
    return match


def published_splits(root: Path) -> list[tuple[str, Path]]:
    """Own data may lie below `train`, `val` and `test`; without these all of it is "train"."""
    if not (root / "train").is_dir():
        return [("train", root)]
    strange = [path.name for path in subfolders(root) if path.name not in SPLITS]
    if strange:
        raise LayoutError(f"{strange[0]}: lies beside 'train'; expected only {', '.join(SPLITS)}")
    return [(split, root / split) for split in SPLITS if (root / split).is_dir()]


def group_pattern(text: str) -> re.Pattern[str] | None:
    """The expression of the option `group`; None where every image is its own group.

    Raises:
        ConfigError: not a regular expression with exactly one capture group.
    """
    if not text:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"options.group: '{text}' is not a regular expression ({error})"
        ) from error
    if pattern.groups != 1:
        raise ConfigError(
            f"options.group: '{text}' has {pattern.groups} capture groups; put the part of the "
            "file name that tells the patient in one pair of parentheses"
        )
    return pattern


def group_of(pattern: re.Pattern[str] | None, root: Path, path: Path) -> str:
    """The group that a file's name tells.

    Raises:
        LayoutError: the expression finds nothing in the name.
    """
    if pattern is None:
        return relative(root, path)
    match = pattern.search(path.name)
    if match is None or not match.group(1):
        raise LayoutError(
            f"{relative(root, path)}: options.group '{pattern.pattern}' finds no group in its name"
        )
    return match.group(1)


def folder_with(root: Path, inside: str) -> Path:
    """The folder that holds `inside`: `root` itself or a folder directly in it.

    Unpacking an archive adds the publisher's top folder or does not, depending on the tool.

    Args:
        root: the dataset's folder.
        inside: path of a file or folder of the official layout, relative to what is sought.

    Raises:
        DatasetNotFoundError: neither `root` nor any folder in it holds it.
        LayoutError: several do, so it is unclear which one is meant.
    """
    if (root / inside).exists():
        return root
    found = [folder for folder in subfolders(root) if (folder / inside).exists()]
    if not found:
        raise DatasetNotFoundError(f"{root}: no '{inside}' here or one folder deeper")
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise LayoutError(f"{root}: '{inside}' lies in several folders ({names}); keep one")
    return found[0]


def paired(
    root: Path, images: Iterable[Path], annotations: Iterable[Path], expected: str
) -> list[tuple[Path, Path]]:
    """Images with the annotation of the same stem, sorted by stem.

    Args:
        root: the dataset's folder, for messages.
        images: image files.
        annotations: mask or table files.
        expected: where the annotation of an image must lie, with `{}` for the stem.

    Raises:
        LayoutError: an image without annotation, or two files of one stem.
        DatasetNotFoundError: an annotation without image, or no image at all.
    """
    pictures, labels = _by_stem(root, images), _by_stem(root, annotations)
    for stem, path in labels.items():
        if stem not in pictures:
            raise DatasetNotFoundError(
                f"{relative(root, path)}: is an annotation, but its image {stem} is missing"
            )
    for stem, path in pictures.items():
        if stem not in labels:
            raise LayoutError(
                f"{relative(root, path)}: has no annotation, expected {expected.format(stem)}"
            )
    if not pictures:
        raise DatasetNotFoundError(f"{root}: no image, expected {expected.format('*')} with images")
    return [(pictures[stem], labels[stem]) for stem in sorted(pictures)]


def _by_stem(root: Path, paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            other = relative(root, found[path.stem])
            raise LayoutError(f"{relative(root, path)}: has the same name as {other}; keep one")
        found[path.stem] = path
    return found
