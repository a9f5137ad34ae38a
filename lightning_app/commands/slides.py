"""Whole slides: the part of `embed` that concerns them."""

from __future__ import annotations

import argparse
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
from lightning_app.publish.embed import embed, is_embedded
from lightning_app.publish.image_sources import SlidePatches
from lightning_app.publish.many_slides import Work, over_slides
from models.inference.frozen_encoder import load_encoder

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
