"""Dataset cards: what a class says about itself, as text, as table and as README."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from datamodules.checks.findings import is_verified
from datamodules.core.atomic import write_text
from datamodules.core.records import Task, TaskKind
from datamodules.prepare import is_prepared
from datamodules.reader import DatasetReader
from datamodules.registry import CONVENTIONS, READERS, reader

README = Path(__file__).resolve().parent.parent / "README.md"

_HEAD = """# Datasets

Written by `python -m lightning_app datasets readme` from the readers themselves: change a reader's
docstring or facts and run it again.

Every public dataset is one file with one class: facts as attributes, a reader of the publisher's
own layout, and a forger of small synthetic copies in that layout. A dataset lies in its folder
below `data.root`, exactly as its publisher packed it.

```
python -m lightning_app datasets list              what is there and what is prepared
python -m lightning_app datasets show NAME         card, balance of classes, contact sheet
python -m lightning_app datasets download NAME     where no form or login is needed
python -m lightning_app datasets prepare NAME      write the HDF5 store
python -m lightning_app datasets verify NAME       read everything and name what is wrong
python -m lightning_app datasets forge NAME        a small synthetic copy in the same layout
```
"""

_OWN = """## Own data

These readers describe conventions, not datasets. Name them in the configuration:
`data.train.my_data={reader: class_folders, folder: my_folder}`.
"""


@dataclass(frozen=True)
class Row:
    """One line of the overview of datasets.

    Attributes:
        name: the dataset's name in the run.
        tasks: "kind: classes" of each task.
        organs: what tissue.
        images: how many labelled images are published; 0 where that is not told.
        mpp: um per pixel of the published images; 0 where unknown.
        licence: as published.
        present: whether its folder exists.
        patches: patches in the store for its settings; None where it is not prepared.
        verified: whether that store was read and found sound since it was written.
    """

    name: str
    tasks: str
    organs: str
    images: int
    mpp: float
    licence: str
    present: bool
    patches: int | None
    verified: bool


def table(datasets: Iterable[DatasetReader]) -> list[Row]:
    """The overview of datasets, in their order."""
    rows = []
    for dataset in datasets:
        prepared = is_prepared(dataset)
        rows.append(
            Row(
                name=dataset.name,
                tasks=tasks_line(dataset.store.tasks if prepared else dataset.tasks),
                organs=", ".join(dataset.organs),
                images=dataset.images,
                mpp=dataset.native_mpp(),
                licence=dataset.licence,
                present=dataset.root.is_dir(),
                patches=len(dataset.store) if prepared else None,
                verified=is_verified(dataset),
            )
        )
    return rows


def tasks_line(tasks: Iterable[Task]) -> str:
    """Tasks in a few words, e.g. "nuclei: segmentation (6), tissue: classification (19)"."""
    return ", ".join(
        f"{task.name}: {task.kind}{f' ({len(task.classes)})' if task.classes else ''}"
        for task in tasks
    )


def card(dataset: type[DatasetReader]) -> str:
    """Everything that is known of a dataset, in markdown that also reads as plain text."""
    sections = [f"# {dataset.title}", _description(dataset), *_facts(dataset)]
    return "\n\n".join(sections) + "\n"


def readme() -> str:
    """The text of `datamodules/README.md`: a table of all datasets and a section for each."""
    public = [(name, reader(name)) for name in READERS if name not in CONVENTIONS]
    own = [(name, reader(name)) for name in CONVENTIONS]
    sections = [_HEAD + "\n" + _table(public)]
    sections += [_section(name, dataset) for name, dataset in public]
    sections.append(_OWN)
    sections += [_section(name, dataset) for name, dataset in own]
    return "\n".join(sections)


def write_readme(path: Path = README) -> Path:
    """Write the README of the datasets; where it lies."""
    write_text(path, readme())
    return path


def _table(datasets: list[tuple[str, type[DatasetReader]]]) -> str:
    lines = [
        "| name | dataset | tasks | organs | images | um/px | commercial use |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, dataset in datasets:
        organs = (
            ", ".join(dataset.organs)
            if len(dataset.organs) < 5
            else f"{len(dataset.organs)} organs"
        )
        use = {True: "yes", False: "no", None: "unclear"}[dataset.commercial]
        mpp = f"{dataset.mpp:g}" if dataset.mpp else "unknown"
        cells = (
            *(f"[{name}](#{name})", dataset.title, tasks_line(dataset.tasks), organs),
            *(f"{dataset.images:,}", mpp, use),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _section(name: str, dataset: type[DatasetReader]) -> str:
    """A card one level deeper, under the name that a configuration uses."""
    parts = [f"## {name}", f"**{dataset.title}**", _description(dataset), *_facts(dataset)]
    return "\n\n".join(parts) + "\n"


def _description(dataset: type[DatasetReader]) -> str:
    """The docstring; its indented parts are already code blocks in markdown."""
    return inspect.cleandoc(dataset.__doc__ or "")


def _facts(dataset: type[DatasetReader]) -> list[str]:
    use = {True: "allowed", False: "not allowed", None: "unclear"}[dataset.commercial]
    facts = {
        "Organs": ", ".join(dataset.organs),
        "Images": _images(dataset),
        "Resolution": f"{dataset.mpp:g} um/px" if dataset.mpp else "",
        "Patches": f"{dataset.patch_size} px, {_view(dataset)}",
        "Groups": dataset.grouping,
        "Overlap of the published split": dataset.split_overlap,
        "Sources": ", ".join(dataset.sources),
        "Licence": dataset.licence + (f"; commercial use {use}" if dataset.sources else ""),
        "Folder": f"`<data.root>/{dataset.folder}`",
        "Get it": _way(dataset),
        "Publisher": dataset.homepage,
        "Cite": dataset.citation,
    }
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items() if value)
    return [_tasks(dataset.tasks), listed, *_options(dataset)]


def _images(dataset: type[DatasetReader]) -> str:
    width, height = dataset.extent
    return f"{dataset.images:,}, about {width}x{height} px" if dataset.images else ""


def _view(dataset: type[DatasetReader]) -> str:
    whole = str(dataset.view) == "whole"
    return "the whole image scaled to one patch" if whole else "tiles of the image"


def _way(dataset: type[DatasetReader]) -> str:
    if not dataset.archives:
        return dataset.obtain
    size = sum(archive.bytes for archive in dataset.archives)
    count = len(dataset.archives)
    files = f"{count} file{'s' if count > 1 else ''}" + (f", {size / 1e9:.1f} GB" if size else "")
    return f"`python -m lightning_app datasets download {dataset.folder}` ({files})"


def _tasks(tasks: Iterable[Task]) -> str:
    lines = ["Tasks:", ""]
    for task in tasks:
        text = f"- `{task.name}`, {task.kind}"
        if task.kind is TaskKind.REGRESSION and task.low is not None and task.high is not None:
            text += f", {task.low:g} to {task.high:g}"
        if task.classes:
            text += ": " + ", ".join(f"{i} {name}" for i, name in enumerate(task.classes))
        lines.append(text)
    return "\n".join(lines) if len(lines) > 2 else ""


def _options(dataset: type[DatasetReader]) -> list[str]:
    """The reader's own options, from its dataclass."""
    if not fields(dataset.options_type):
        return []
    text = inspect.cleandoc(dataset.options_type.__doc__ or "")
    _, _, attributes = text.partition("Attributes:\n")
    return ["Options:", attributes.rstrip()]
