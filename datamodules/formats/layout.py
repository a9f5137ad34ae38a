"""Walking publishers' folders: what several readers need, with errors that name the file.

Everywhere `root` is the dataset's folder; messages name files relative to it.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from datamodules.core import notes
from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.notes import skipped
from datamodules.core.records import Record, Targets
from datamodules.formats.images import IMAGE_SUFFIXES

_JUNK = {
    *(".ds_store", "thumbs.db", "desktop.ini", "__macosx", "@eadir", ".ipynb_checkpoints"),
    *("#recycle", "$recycle.bin", "system volume information", "lost+found"),
}
# Endings of tables and texts, which may lie beside images without being one.
_BESIDE = {".csv", ".tsv", ".xlsx", ".json", ".xml", ".txt", ".md", ".pdf", ".html"}
_BESIDE |= {".yaml", ".yml"}


def is_junk(path: Path) -> bool:
    """Whether a file or folder is left there by an operating system or a program.

    >>> [is_junk(Path(name)) for name in ("._1.png", "a/__MACOSX", "Thumbs.db", "1.png")]
    [True, True, True, False]
    """
    return path.name.startswith("._") or path.name.lower() in _JUNK


def entries(folder: Path) -> list[Path]:
    """What lies directly in a folder, sorted by name, without junk.

    A name that is not UTF-8 is refused, because a store cannot keep it.
    """
    if not folder.is_dir():
        raise DatasetNotFoundError(f"{folder}: no such folder; the dataset keeps its data there")
    paths = sorted(path for path in folder.iterdir() if not is_junk(path))
    for path in paths:
        name = path.name.encode("utf-8", "backslashreplace").decode()
        if name != path.name:
            raise LayoutError(f"{folder}: the name {name} is not UTF-8; rename it")
    return paths


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files of these endings (in small letters) directly in a folder, sorted by name."""
    found = []
    for path in entries(folder):
        if path.suffix.lower() in suffixes and not path.is_dir():
            if path.name.startswith(".") or not path.is_file():
                skipped(path, "hidden file, or a link to none")
            else:
                found.append(path)
    return found


def list_images(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; what else lies there is noted."""
    for path in entries(folder):
        known = path.suffix.lower() in IMAGE_SUFFIXES | _BESIDE or path.name.startswith(".")
        if not known and not path.is_dir():
            skipped(path, "no image, by its ending")
    return list_files(folder, IMAGE_SUFFIXES)


def walk_images(folder: Path) -> list[Path]:
    """Image files in a folder and all below it, in order of path, without hidden folders."""
    inner = [path for path in subfolders(folder) if not path.is_symlink()]
    return sorted([*list_images(folder), *(p for one in inner for p in walk_images(one))])


def relative(root: Path, path: Path) -> str:
    """A file's name below the dataset's folder, the same on every system."""
    return path.relative_to(root).as_posix()


def layout_error(root: Path, path: Path, problem: str) -> LayoutError:
    """The error to raise for a file or folder that does not fit the official layout."""
    return LayoutError(f"{relative(root, path)}: {problem}")


def image_record(
    root: Path,
    path: Path,
    targets: Targets,
    split: str = "train",
    group: str = "",
    mpp: float | None = None,
    size: tuple[int, int] | None = None,
) -> Record:
    """The record of an image file; without a `group` the image is its own group."""
    source = relative(root, path)
    return Record(source, path, targets, split, group or source, mpp, size)


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, sorted by name, without hidden ones."""
    return [p for p in entries(folder) if p.is_dir() and not p.name.startswith(".")]


def nonempty_images(root: Path, folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted; a LayoutError where there is none."""
    paths = list_images(folder)
    if not paths:
        raise layout_error(root, folder, "the folder holds no image")
    return paths


def class_images(
    root: Path, folder: Path, classes: Sequence[str], complete: bool = True
) -> Iterator[tuple[Path, int]]:
    """Images of `folder/<class>/` with the class index, class by class.

    Where not all must be there (`complete`), a missing folder is counted.
    """
    present = [path.name for path in subfolders(folder)]
    unknown = [name for name in present if name not in classes]
    if unknown:
        problem = f"not a class of this dataset; expected {', '.join(classes)}"
        raise layout_error(root, folder / unknown[0], problem)
    missing = [name for name in classes if name not in present]
    if not present or (complete and missing):
        raise layout_error(root, folder / missing[0], "no such class folder; fetch the data again")
    for index, name in enumerate(classes):
        if name not in present:
            notes.skipped(relative(root, folder / name), "class folder does not exist")
            continue
        for path in nonempty_images(root, folder / name):
            yield path, index


def named(pattern: re.Pattern[str], root: Path, path: Path, expected: str) -> re.Match[str]:
    """Match a file's name against the publisher's pattern; else a LayoutError shows `expected`."""
    match = pattern.fullmatch(path.name)
    if match is None:
        raise layout_error(root, path, f"unexpected name; expected {expected}")
    return match


def folder_with(root: Path, inside: str) -> Path:
    """The folder that holds `inside`: `root` itself or a folder directly in it.

    Depending on the tool, unpacking an archive adds the publisher's top folder or does not.
    """
    if (root / inside).exists():
        return root
    folders = [folder for folder in subfolders(root) if (folder / inside).exists()]
    if not folders:
        raise DatasetNotFoundError(f"{root}: no '{inside}' here or one folder deeper")
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise LayoutError(f"{root}: '{inside}' lies in several folders ({names}); keep one")
    return folders[0]


def paired(
    root: Path,
    images: Iterable[Path],
    annotations: Iterable[Path],
    expected: str,
    allow_missing: bool = False,
) -> list[tuple[Path, Path]]:
    """Images with the annotation of the same stem, sorted by the image's name.

    `expected` is the place of an image's annotation, with `{}` for the stem. With `allow_missing`,
    annotations without image are counted instead of refused; images without annotation, and two
    files of one stem, are always refused.
    """
    image_of, annotation_of = _by_stem(root, images), _by_stem(root, annotations)
    for stem, path in annotation_of.items():
        if stem not in image_of and not allow_missing:
            raise DatasetNotFoundError(
                f"{relative(root, path)}: is an annotation, but its image {stem} is missing; "
                "options.allow_missing=true goes without"
            )
        if stem not in image_of:
            notes.skipped(relative(root, path), "listed image does not exist")
    for stem, path in image_of.items():
        if stem not in annotation_of:
            raise layout_error(root, path, f"has no annotation, expected {expected.format(stem)}")
    if not image_of:
        raise DatasetNotFoundError(f"{root}: no image, expected {expected.format('*')} with images")
    return [(path, annotation_of[path.stem]) for path in sorted(image_of.values())]


def _by_stem(root: Path, paths: Iterable[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in sorted(paths):
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            problem = f"has the same name as {relative(root, other)}; keep one"
            raise layout_error(root, path, problem)
    return by_stem


def note_unlisted(root: Path, folder: Path, names: Collection[str], table: str) -> None:
    """Count the image files of a folder whose names a table does not list."""
    for path in list_images(folder) if folder.is_dir() else ():
        if path.name not in names:
            notes.skipped(relative(root, path), f"image that {table} does not list")


def check_rows(root: Path, path: Path, rows: int, images: int) -> None:
    """Check that a table or array has one row for each image; else a LayoutError."""
    if rows != images:
        raise layout_error(root, path, f"{rows} rows for {images} images")
