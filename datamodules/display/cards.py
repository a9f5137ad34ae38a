"""Dataset cards: the facts of a reader as markdown, and tables of them."""

import inspect
from collections.abc import Iterable
from typing import Any

from datamodules.core.disk_space import size_text
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Task, TaskKind
from datamodules.reader import DatasetReader
from datamodules.registry import CONVENTIONS, READERS, reader
from datamodules.store.tiling import View
from datamodules.store_size import store_bytes

_LONG = """| name | dataset | tasks | organs | images | µm/px | download | disk | access | licence \
| commercial use |
|---|---|---|---|---|---|---|---|---|---|---|
"""
_SHORT = """| dataset | tasks | images | download | disk | access | commercial use |
|---|---|---|---|---|---|---|
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


def summary_table() -> str:
    """Return a markdown table of all public datasets, whose names link to pages of their cards."""
    return _LONG + "".join(_row(name) for name in READERS if name not in CONVENTIONS)


def short_table(names: Iterable[str]) -> str:
    """Return a markdown table of what somebody needs to know before using these datasets."""
    return _SHORT + "".join(_line(name, *_cells(reader(name))) for name in names)


def tasks_line(tasks: Iterable[Task]) -> str:
    """Summarise tasks, e.g. "nuclei: segmentation (6), tissue: classification (19)"."""
    return ", ".join(
        f"{task.name}: {task.kind}{f' ({len(task.classes)})' if task.classes else ''}"
        for task in tasks
    )


def _row(name: str) -> str:
    dataset = reader(name)
    organs = ", ".join(dataset.organs)
    _, images, download, disk, access, commercial = _cells(dataset)
    return _line(
        f"[{name}]({name}.md)",
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
    lines = [f"- {name}: {value}" for name, value in facts.items() if value]
    return "\n".join(["Facts:", "", *lines])  # without words between, two lists become one


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
