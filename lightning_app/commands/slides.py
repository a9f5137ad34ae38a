"""The verb `predict`, and the part of `embed` that concerns whole slides."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from rich.console import Console

from datamodules.config import DataConfig
from datamodules.core.atomic import atomic_path
from datamodules.core.errors import SlideError
from datamodules.formats.images import write_image
from datamodules.slides.opening import slides_in
from datamodules.slides.tiles import SlideTiles, Tiling
from lightning_app.config import load_config
from lightning_app.predict.run import (
    DONE,
    Settings,
    at_resolutions,
    facts_of,
    predict_images,
    predict_slide,
)
from lightning_app.publish.embed import embed, is_embedded
from lightning_app.publish.image_sources import ImageFolder, SlidePatches, StorePatches
from lightning_app.publish.many_slides import Work, devices, over_slides
from models.inference.loading import load_encoder
from models.inference.trained_tasks import load_tasks
from models.tasks import TaskSpec

STORES = (".h5", ".hdf5")
console = Console(soft_wrap=True, highlight=False, markup=False)


def slides_at(place: Path) -> list[Path]:
    """Return the slides at a place: a file that is no store, or a folder of slides; else none."""
    if place.suffix in STORES:
        return []
    return [place] if place.is_file() else slides_in(place)


def embed_slides(options: argparse.Namespace, slides: list[Path]) -> int:
    """Write features of slides; return the exit code.

    Raises:
        SlideError: some failed; the others are done.
    """
    encoder = load_encoder(options.encoder, options.size or None)
    mpp = options.mpp or run_mpp(Path(options.encoder))
    tiling = Tiling(encoder.input_size, mpp, options.overlap, options.tissue, options.slide_mpp)
    outs = {slides[0]: options.out}
    if options.images.is_dir():
        outs = outputs(slides, options.out, ".h5")
    elif options.out.suffix not in STORES:
        raise SlideError(f"--out {options.out}: must end with .h5")
    settings = options.batch_size, options.readers
    over_slides(
        slides,
        partial(embedding, options.encoder, tiling, outs, settings),
        options.processes,
        console.print,
    )
    return 0


def embedding(
    spec: str, tiling: Tiling, outs: dict[Path, Path], settings: tuple[int, int], device: str
) -> Work:
    """Return what embeds a slide on a device; it leaves out what is done already."""
    encoder = load_encoder(spec, tiling.side, device)

    def work(path: Path) -> str:
        source, out = SlidePatches(path, tiling), outs[path]
        done = f"{len(source)} embeddings of {path}: {out}"
        if is_embedded(encoder, source, out):
            return f"{done} (exists)"
        embed(encoder, source, out, *settings)
        write_thumbnail(source.tiles, out.with_suffix(".png"))
        return done

    return work


def outputs(slides: list[Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """Return a file or folder in `folder` for each slide, named as the slide.

    Raises:
        SlideError: two slides have the same name.
    """
    places: dict[Path, Path] = {}
    for path in slides:
        place = folder / f"{path.stem}{suffix}"
        twin = next((other for other, used in places.items() if used == place), None)
        if twin is not None:
            raise SlideError(f"{path}: has the same name as {twin}; rename one of them")
        places[path] = place
    return places


def run_mpp(run: Path) -> float:
    """Return the µm/px of a run's patches, from its config.yaml; the default without one."""
    file = run / "config.yaml"
    return load_config(file, []).data.mpp if file.is_file() else DataConfig().mpp


def write_thumbnail(tiles: SlideTiles, path: Path) -> None:
    """Write the slide at low resolution with its tissue and its tiles as PNG."""
    with atomic_path(path) as partial_file:
        named = partial_file.with_suffix(".png")
        write_image(named, tiles.drawn)
        named.replace(partial_file)


def run_predict(options: argparse.Namespace) -> int:
    """Write what trained tasks find on slides, images or a store; return the exit code.

    Raises:
        SlideError: some slides failed; the others are done.
    """
    settings = Settings(
        *(options.mpp, options.slide_mpp, options.tissue, options.score),
        *(options.batch_size, options.readers),
    )
    slides, asked = slides_at(options.images), bool(options.task)
    tasks = load_tasks(options.run, "cpu" if slides else devices(1)[0])
    specs = tasks.chosen(options.task)
    if slides:
        outs = {slides[0]: options.out}
        if options.images.is_dir():
            outs = outputs(slides, options.out, "")
        groups = at_resolutions(specs, asked, settings)
        prepare = partial(predicting, tasks.path, groups, outs, settings)
        over_slides(slides, prepare, options.processes, console.print)
        return 0
    _check_new(options.out)
    source_class = StorePatches if options.images.suffix in STORES else ImageFolder
    source = source_class(options.images, tasks.size)
    console.print(predict_images(tasks, specs, asked, source, options.out, settings))
    return 0


def predicting(
    checkpoint: Path,
    groups: dict[float, list[TaskSpec]],
    outs: dict[Path, Path],
    settings: Settings,
    device: str,
) -> Work:
    """Return what predicts on a slide; it leaves out what is done already."""
    tasks = load_tasks(checkpoint, device)

    def work(path: Path) -> str:
        out, facts = outs[path], facts_of(tasks, groups, path, settings)
        done = out / DONE
        if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == facts:
            return f"{path}: {out} (exists)"
        _check_new(out)
        return predict_slide(tasks, groups, path, out, settings)

    return work


def _check_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SlideError(f"--out {out}: exists, with another content; remove it, or name another")
