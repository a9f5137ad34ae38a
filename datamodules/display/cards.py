"""Dataset cards: the facts of a reader as markdown, and the README that collects them."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datamodules.core.atomic import write_text
from datamodules.core.disk_space import size_text
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Task, TaskKind
from datamodules.reader import DatasetReader
from datamodules.registry import CONVENTIONS, READERS, reader
from datamodules.store.tiling import View
from datamodules.store_size import store_bytes

README = Path(__file__).resolve().parent.parent / "README.md"
MAIN_README = README.parent.parent / "README.md"
_BLOCK = ("<!-- datasets: written by `datasets readme` -->\n", "<!-- datasets: end -->\n")

_HEAD = """# Datasets

Generated from the readers by `python -m lightning_app datasets readme`: change a reader's docstring
or facts and run it again.

Every public dataset is one file with one class: facts as attributes, a reader of the publisher's
own layout, and a function that forges small synthetic copies in that layout. A dataset lies in its
folder below `data.root`, exactly as its publisher packed it.

What does not fit is an error that names file, line and column. What is passed over or odd, such as
an outline without area, is counted: `prepare` and `verify` end with the counts, and the store keeps
them. Every reader has the option `allow_missing`: go without listed images and folders that do not
exist. A dataset's key `follow_links` lets links lead out of its folder.

```
python -m lightning_app datasets list              what exists and what is prepared
python -m lightning_app datasets show NAME         card, class balance, contact sheet
python -m lightning_app datasets download NAME     where no form or login is needed
python -m lightning_app datasets unpack NAME FILE  check and unpack what you fetched by hand
python -m lightning_app datasets prepare NAME      write the HDF5 store
python -m lightning_app datasets verify NAME       read everything and list problems
python -m lightning_app datasets forge NAME        a small synthetic copy in the same layout
```

Sizes are as published, or computed from the number and usual size of the images. "Disk" is of the
unpacked files and the store; while an archive is unpacked, it needs its own size besides. Access is
automatic (`datasets download`), by hand (links to follow), by a form, or by a login.

| name | dataset | tasks | organs | images | µm/px | download | disk | access | licence | \
commercial use |
|---|---|---|---|---|---|---|---|---|---|---|
"""
_SHORT = """| dataset | tasks | images | download | disk | access | commercial use |
|---|---|---|---|---|---|---|
"""

_OWN = """
## Own data

These readers describe conventions, not datasets. Name them in the configuration:
`data.train.my_data={reader: class_folders, folder: my_folder}`.
"""


def card(dataset: type[DatasetReader], heading: str = "") -> str:
    """Return everything known about a dataset, in markdown that also reads as plain text.

    The heading replaces the title.
    """
    parts = [
        heading or f"# {dataset.title}",
        inspect.cleandoc(dataset.__doc__ or ""),  # its indented parts are code blocks in markdown
        _task_list(dataset.tasks),
        _facts(dataset),
    ]
    kinds: dict[type[Any], None] = dict.fromkeys((dataset.options_type, ReaderOptions))
    options = [_options(kind) for kind in kinds if not heading or kind is not ReaderOptions]
    if options:
        parts += ["Options:", "\n".join(options)]
    return "\n\n".join(parts) + "\n"


def _options(kind: type[Any]) -> str:
    """The options that a dataclass states itself."""
    return inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].rstrip()


def readme() -> str:
    """Return the text of `datamodules/README.md`: a table of all datasets and their cards."""
    public = {name: reader(name) for name in READERS if name not in CONVENTIONS}
    own = {name: reader(name) for name in CONVENTIONS}
    rows = [_row(name, dataset) for name, dataset in public.items()]
    return "".join([_HEAD, *rows, *_sections(public), _OWN, *_sections(own)])


def write_readme(path: Path = README, main: Path = MAIN_README) -> Path:
    """Write the README of the datasets, and the short table in the main one; return its path."""
    write_text(path, readme())
    text = main.read_text(encoding="utf-8")
    if (changed := with_short_table(text)) != text:
        write_text(main, changed)
    return path


def with_short_table(text: str) -> str:
    """Return a text with the current short table of all public datasets between its marks."""
    begin, end = _BLOCK
    before, _, rest = text.partition(begin)
    table = "".join(
        _line(f"[{name}](datamodules/README.md#{name})", *_cells(reader(name)))
        for name in READERS
        if name not in CONVENTIONS
    )
    return f"{before}{begin}{_SHORT}{table}{end}{rest.partition(end)[2]}"


def tasks_line(tasks: Iterable[Task]) -> str:
    """Summarise tasks, e.g. "nuclei: segmentation (6), tissue: classification (19)"."""
    return ", ".join(
        f"{task.name}: {task.kind}{f' ({len(task.classes)})' if task.classes else ''}"
        for task in tasks
    )


def _sections(datasets: dict[str, type[DatasetReader]]) -> list[str]:
    """Cards one level deeper, below the names used in a configuration."""
    return [
        "\n" + card(dataset, f"## {name}\n\n**{dataset.title}**")
        for name, dataset in datasets.items()
    ]


def _row(name: str, dataset: type[DatasetReader]) -> str:
    organs = ", ".join(dataset.organs)
    _, images, download, disk, access, commercial = _cells(dataset)
    return _line(
        f"[{name}](#{name})",
        dataset.title,
        tasks_line(dataset.tasks),
        organs if len(dataset.organs) < 5 else f"{len(dataset.organs)} organs",
        images,
        f"{dataset.mpp:g}" if dataset.mpp else "unknown",
        *(download, disk, access, dataset.licence, commercial),
    )


def _cells(dataset: type[DatasetReader]) -> tuple[str, ...]:
    """Kinds of tasks, images, download, disk, access and commercial use."""
    stored = store_bytes(dataset())
    return (
        ", ".join(dict.fromkeys(str(task.kind) for task in dataset.tasks)),
        f"{dataset.images:,}",
        _size(download_bytes(dataset)),
        _size(dataset.disk_gb * 1e9 + stored),
        dataset.access,
        {True: "yes", False: "no", None: "unclear"}[dataset.commercial],
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _size(size: float) -> str:
    return size_text(size) if size else "unknown"


def download_bytes(dataset: type[DatasetReader]) -> float:
    """Bytes of all archives as far as known, or the published sum; 0 where unknown."""
    sizes = [archive.bytes for archive in dataset.archives]
    return sum(sizes) if sizes and all(sizes) else dataset.download_gb * 1e9


def _facts(dataset: type[DatasetReader]) -> str:
    use = {True: "allowed", False: "not allowed", None: "unclear"}[dataset.commercial]
    size = "about {}x{} px".format(*dataset.extent)
    whole = dataset.view is View.WHOLE
    view = "the whole image scaled to one patch" if whole else "tiles of the image"
    facts = {
        "Organs": ", ".join(dataset.organs),
        "Images": f"{dataset.images:,}, {size}" if dataset.images else "",
        "Resolution": f"{dataset.mpp:g} µm/px" if dataset.mpp else "",
        "Patches": f"{dataset.patch_size} px, {view}",
        "Groups": dataset.grouping,
        "Overlap of the published split": dataset.split_overlap,
        "Sources": ", ".join(dataset.sources),
        "Licence": dataset.licence + (f"; commercial use {use}" if dataset.sources else ""),
        "Folder": f"`<data.root>/{dataset.folder}`",
        "Get it": _how_to_get(dataset),
        "Publisher": dataset.homepage,
        "Cite": dataset.citation,
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)


def _how_to_get(dataset: type[DatasetReader]) -> str:
    if dataset.access != "automatic":
        return f"{dataset.access}: {dataset.obtain}; then `datasets unpack {dataset.folder} FILE`"
    count, size = len(dataset.archives), download_bytes(dataset)
    files = f"{count} file{'s' if count > 1 else ''}" + (f", {_size(size)}" if size else "")
    hand = f"; or {dataset.obtain}" if dataset.obtain else ""
    return f"`python -m lightning_app datasets download {dataset.folder}` ({files}){hand}"


def _task_list(tasks: Iterable[Task]) -> str:
    lines = []
    for task in tasks:
        text = f"- `{task.name}`, {task.kind}"
        if task.kind is TaskKind.REGRESSION and task.low is not None and task.high is not None:
            text += f", {task.low:g} to {task.high:g}"
        if task.classes:
            text += ": " + ", ".join(f"{i} {name}" for i, name in enumerate(task.classes))
        lines.append(text)
    return "\n".join(["Tasks:", "", *lines]) if lines else ""
