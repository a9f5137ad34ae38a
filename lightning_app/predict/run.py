"""The chosen tasks of a run on a slide, on a folder of images, or on a store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.core.atomic import atomic_folder, write_json
from datamodules.core.disk_space import naming, require_space
from datamodules.core.errors import ConfigError
from datamodules.core.progress import Work
from datamodules.core.records import Image, TaskKind
from datamodules.formats.images import read_image, write_image
from datamodules.slides.plain_image import PlainImage
from datamodules.slides.tiles import SlideTiles, Tiling
from lightning_app.predict.class_tables import ClassTable
from lightning_app.predict.label_maps import LabelMap
from lightning_app.predict.objects import Objects
from lightning_app.publish.image_sources import ImageFolder, Readable, StorePatches, in_batches
from models.inference.trained_tasks import TrainedTasks
from models.tasks import TaskSpec

log = logging.getLogger(__name__)

DENSE = (TaskKind.SEGMENTATION, TaskKind.DETECTION)
Writer = LabelMap | Objects | ClassTable


@dataclass(frozen=True)
class Settings:
    """How to predict.

    Attributes:
        mpp: µm/px of the network input, where a task was trained at an unknown one; 0 if unknown.
        slide_mpp: µm/px of slides and images that state none; 0 trusts the file.
        least_tissue: smallest share of tissue in a tile that is only classified.
        least_score: lowest score of a detection.
        batch_size: tiles per forward pass.
        readers: processes that read slides ahead.
    """

    mpp: float = 0.0
    slide_mpp: float = 0.0
    least_tissue: float = 0.25
    least_score: float = 0.5
    batch_size: int = 64
    readers: int = 2

    def tiling(self, size: int, mpp: float, specs: Sequence[TaskSpec]) -> Tiling:
        """Return how to cut for tasks at a resolution.

        Where pixels or objects are looked for, all tissue counts, with what lies around it.
        """
        if not any(spec.task.kind in DENSE for spec in specs):
            return Tiling(size, mpp, 0, self.least_tissue, self.slide_mpp)
        overlap = size - max(16, size * 3 // 4 // 16 * 16)
        return Tiling(size, mpp, overlap, 0.0, self.slide_mpp, centred=True)


def at_resolutions(
    specs: Sequence[TaskSpec], asked: bool, settings: Settings
) -> dict[float, list[TaskSpec]]:
    """Return the tasks by the µm/px of their network input.

    Args:
        specs: the tasks.
        asked: whether they were asked for by name; else those without µm/px are left out.
        settings: gives the µm/px of tasks that were trained at an unknown one.

    Raises:
        ConfigError: a task has no µm/px, or no task is left.
    """
    groups: dict[float, list[TaskSpec]] = {}
    for spec in specs:
        mpp = spec.mpp or settings.mpp
        if mpp:
            groups.setdefault(mpp, []).append(spec)
            continue
        problem = f"{spec.key}: was trained at an unknown µm/px"
        if asked:
            raise ConfigError(f"{problem}; say with --mpp at which one to use it")
        log.warning("%s and is left out; name it with --task and give --mpp", problem)
    if not groups:
        raise ConfigError("no task is left to predict; give --mpp")
    return groups


def predict_slide(
    tasks: TrainedTasks,
    groups: Mapping[float, Sequence[TaskSpec]],
    path: Path,
    out: Path,
    settings: Settings,
) -> str:
    """Write what all tasks find on a slide into a new folder; return a line about it.

    An interrupted call begins the slide anew: objects and class tables are complete only when all
    tiles are, and keeping them after each batch would cost more than is lost, at most one slide.

    Raises:
        SlideError: see `SlideTiles`.
    """
    lines = []
    require_space(out, 50e6)
    with naming(out), atomic_folder(out, unique=False) as folder:
        for mpp, specs in groups.items():
            tiles = SlideTiles(path, settings.tiling(tasks.size, mpp, specs))
            writers = {spec.key: _writer(spec, tiles, folder, settings) for spec in specs}
            with Work(path.name, "tiles", len(tiles)) as work:
                for rows in _collect(tasks, specs, tiles, writers, settings, settings.readers):
                    work.advance(len(rows))
            for spec in specs:
                lines.append(_write(writers[spec.key], spec, tiles, folder))
            write_image(folder / f"tiles-{mpp:g}.png", tiles.drawn)
        write_json(folder / DONE, facts_of(tasks, groups, path, settings))
    return f"{path}: {out}: {', '.join(lines)}"


DONE = "prediction.json"
"""In a slide's folder: what was predicted with what."""


def facts_of(
    tasks: TrainedTasks,
    groups: Mapping[float, Sequence[TaskSpec]],
    path: Path,
    settings: Settings,
) -> dict[str, Any]:
    """Return what a prediction of a slide depends on."""
    stat = path.stat()
    used = (settings.slide_mpp, settings.least_tissue, settings.least_score)
    return {
        "slide": [str(path), stat.st_size, stat.st_mtime_ns],
        "checkpoint": [str(tasks.path), tasks.path.stat().st_mtime_ns],
        "tasks": {spec.key: mpp for mpp, specs in groups.items() for spec in specs},
        "settings": list(used),
    }


def predict_images(
    tasks: TrainedTasks,
    specs: Sequence[TaskSpec],
    asked: bool,
    source: ImageFolder | StorePatches,
    out: Path,
    settings: Settings,
) -> str:
    """Write what all tasks find on the images of a folder or store; return a line about it.

    Images with a class or number are scaled as a whole; where pixels are classified or objects
    detected, they are cut into tiles at the task's µm/px.
    """
    whole = [spec for spec in specs if spec.task.kind not in DENSE]
    dense = [spec for spec in specs if spec.task.kind in DENSE]
    groups = at_resolutions(dense, asked or not whole, settings) if dense else {}
    total = len(source) * (bool(whole) + bool(groups))
    work = Work(out.name, "images", total)
    with naming(out), atomic_folder(out, unique=False) as folder, work:
        if whole:
            tables = {spec.key: ClassTable(spec) for spec in whole}
            for rows in _collect(tasks, whole, source, tables, settings, 0):
                work.advance(len(rows))
            for spec in whole:
                tables[spec.key].write(folder / f"{_name(spec)}.csv", _columns(source))
        for name, path, pixels in _pictures(source) if groups else ():
            picture = PlainImage(path, pixels, float(source.attributes.get("mpp", 0)))
            for size_mpp, group in groups.items():
                tiling = settings.tiling(tasks.size, size_mpp, group)
                tiles = SlideTiles(path, tiling, partial(_itself, picture))
                writers = {spec.key: _writer(spec, tiles, folder, settings) for spec in group}
                for _ in _collect(tasks, group, tiles, writers, settings, 0):
                    pass
                for spec in group:
                    _write_picture(writers[spec.key], folder / _name(spec) / name)
            work.advance()
    return f"{len(source)} images: {out}: {', '.join(_name(spec) for spec in specs)}"


def _collect(
    tasks: TrainedTasks,
    specs: Sequence[TaskSpec],
    source: Readable,
    writers: Mapping[str, Writer],
    settings: Settings,
    readers: int,
) -> Iterator[range]:
    """Give all predictions to the writers; yield the rows of each batch that is done."""
    for rows, images in in_batches(source, settings.batch_size, readers):
        for key, prediction in tasks.predict(images, specs).items():
            writers[key].add(rows, prediction)
        yield rows


def _writer(spec: TaskSpec, tiles: SlideTiles, scratch: Path, settings: Settings) -> Writer:
    if spec.task.kind is TaskKind.SEGMENTATION:
        return LabelMap(spec.task, tiles, scratch)
    if spec.task.kind is TaskKind.DETECTION:
        return Objects(spec.task, tiles, settings.least_score)
    return ClassTable(spec)


def _write(writer: Writer, spec: TaskSpec, tiles: SlideTiles, folder: Path) -> str:
    """Write the result of a task on a slide; return its name, and the number of its objects."""
    name = _name(spec)
    if isinstance(writer, LabelMap):
        writer.write(folder / f"{name}.tif")
    elif isinstance(writer, Objects):
        return f"{name} ({writer.write(folder / f'{name}.geojson')} objects)"
    else:
        x, y = tiles.corners.T
        sides = [round(tiles.span)] * len(tiles)
        writer.write(folder / f"{name}.csv", {"x": x, "y": y, "side": sides})
        writer.draw(folder, tiles)
    return name


def _write_picture(writer: Writer, place: Path) -> None:
    if isinstance(writer, LabelMap):
        writer.write_image(place.with_name(f"{place.name}.png"))
    elif isinstance(writer, Objects):
        writer.write(place.with_name(f"{place.name}.geojson"))


def _columns(source: ImageFolder | StorePatches) -> Mapping[str, Any]:
    columns = dict(source.columns())
    if "coordinates" in columns:
        columns["x"], columns["y"] = columns.pop("coordinates").T
    return columns


def _pictures(source: ImageFolder | StorePatches) -> Iterator[tuple[str, Path, Image]]:
    """Yield name, path for messages, and pixels of each image."""
    for number in range(len(source)):
        if isinstance(source, ImageFolder):
            path = source.paths[number]
            yield str(path.relative_to(source.folder)), path, read_image(path)
        else:
            yield f"{number:06d}", source.store.path, source.store.images([number])[0]


def _itself(picture: PlainImage, path: Path) -> PlainImage:
    return picture


def _name(spec: TaskSpec) -> str:
    return f"{spec.dataset}-{spec.task.name}"
