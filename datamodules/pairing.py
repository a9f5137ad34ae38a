"""Finding the publisher's top folder, and which annotation belongs to which image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from datamodules.errors import DatasetNotFoundError, LayoutError
from datamodules.layout import relative, subfolders


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
