"""Features of many images, for whatever comes after: written in batches, taken up again."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import h5py
import numpy as np
import torch

from datamodules.core.atomic import atomic_path, partial_path, write_json
from datamodules.core.progress import progress_display
from lightning_app.publish.image_sources import Source
from models.inference.frozen_encoder import FrozenEncoder

log = logging.getLogger(__name__)

_BLOCK = 4096  # rows copied at a time


def embed(encoder: FrozenEncoder, source: Source, out: Path, batch_size: int) -> int:
    """Embed all images of a source and write an HDF5 file, complete or not at all.

    The file holds `features` float32 (n, d), the source's columns (n, ...) and, as attributes,
    the encoder's name, timm name and digest, the input size in pixels and what the source says of
    itself. Until it is complete, features lie in `.<name>.partial` beside it, whole batches of
    which the same call takes up again after an interruption.

    Args:
        encoder: frozen encoder; its input size is the source's.
        source: of images.
        out: HDF5 file to write.
        batch_size: images per forward pass.

    Returns:
        How many images were embedded.

    Raises:
        UserError: an image cannot be read.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(out)
    side = encoder.input_size
    width = encoder.embed(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape[1]
    done = _taken_up(encoder, source, partial, batch_size, width)
    with partial.open("ab") as file, progress_display(out.name) as steps:
        for start in range(done, len(source), batch_size):
            rows = range(start, min(start + batch_size, len(source)))
            values = encoder.embed(torch.from_numpy(source.read(rows)))
            file.write(values.numpy().tobytes())
            file.flush()
            steps("embedding", 0, len(rows))
    _publish(encoder, source, partial, out, width)
    return len(source)


def _taken_up(
    encoder: FrozenEncoder, source: Source, partial: Path, batch_size: int, width: int
) -> int:
    """How many images an interrupted call has embedded already, in whole batches."""
    wanted = {
        "encoder": encoder.digest,
        "input_size": encoder.input_size,
        "source": source.identity(),
        "batch_size": batch_size,
    }
    facts = partial.with_suffix(".json")
    same = facts.is_file() and partial.is_file() and json.loads(facts.read_text()) == wanted
    if not same:
        partial.write_bytes(b"")
        write_json(facts, wanted)
        return 0
    row = 4 * width  # bytes
    whole = partial.stat().st_size // (row * batch_size) * batch_size
    if partial.stat().st_size >= row * len(source):
        whole = len(source)
    os.truncate(partial, row * whole)
    if whole:
        log.info("%d of %d embeddings were there already", whole, len(source))
    return whole


def _publish(encoder: FrozenEncoder, source: Source, partial: Path, out: Path, width: int) -> None:
    features = np.memmap(partial, np.float32, "r", shape=(len(source), width))
    with atomic_path(out) as complete, h5py.File(complete, "w") as file:
        written = file.create_dataset("features", features.shape, np.float32)
        for start in range(0, len(features), _BLOCK):
            written[start : start + _BLOCK] = features[start : start + _BLOCK]
        for name, values in source.columns().items():
            text = isinstance(values, list)
            file.create_dataset(name, data=values, dtype=h5py.string_dtype() if text else None)
        file.attrs.update(
            encoder=encoder.name,
            timm_name=encoder.facts["timm_name"],
            digest=encoder.digest,
            input_size=encoder.input_size,
            **source.attributes(),
        )
    partial.unlink()
    partial.with_suffix(".json").unlink()
