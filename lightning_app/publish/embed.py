"""Features of many images, written in batches and continued after an interruption."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import h5py
import numpy as np
import torch

from datamodules.core.atomic import atomic_path, partial_path, write_json
from datamodules.core.disk_space import naming, require_space
from datamodules.core.errors import EncoderError
from datamodules.core.hdf5 import NewFile
from datamodules.core.progress import Work
from lightning_app.publish.image_sources import Source, in_batches
from models.inference.frozen_encoder import FrozenEncoder

log = logging.getLogger(__name__)

_BLOCK = 4096  # rows copied at a time


def embed(
    encoder: FrozenEncoder, source: Source, out: Path, batch_size: int, readers: int = 0
) -> int:
    """Embed all images of a source, write an HDF5 file atomically and return the image count.

    The file holds `features` (n, d) float32, the source's columns (n, ...) and, as attributes,
    the encoder's name, timm name and digest, the input size in pixels and the attributes of the
    source, which a column `coords` has, too. Until then the features are in `.<name>.partial`
    beside it; after an interruption, the same call continues after its last complete batch.

    Args:
        encoder: frozen encoder; its input size is the source's.
        source: the images.
        out: HDF5 file to write.
        batch_size: images per forward pass.
        readers: processes that read ahead; 0 reads in this one.

    Raises:
        UserError: an image cannot be read, or has no finite features.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(out)
    side = encoder.input_size
    width = encoder.embed(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape[1]
    kept = partial.stat().st_size if partial.is_file() else 0
    require_space(out, 2 * 4 * width * len(source) - kept)
    with naming(out, partial):
        done = _resume(encoder, source, partial, batch_size, width)
    work = Work(out.name, "images", len(source))
    with naming(out), partial.open("ab") as file, work:
        work.reach(done)
        for rows, images in in_batches(source, batch_size, readers, done):
            values = encoder.embed(images)
            if not values.isfinite().all():
                raise EncoderError(
                    f"{encoder.name} gives features that are not finite for images {rows.start} to "
                    f"{rows.stop - 1} of {len(source)}; use another encoder"
                )
            file.write(values.numpy().tobytes())
            file.flush()
            work.advance(len(rows))
    _publish(encoder, source, partial, out, width)
    return len(source)


def is_embedded(encoder: FrozenEncoder, source: Source, out: Path) -> bool:
    """Return whether a file holds the features of this source and encoder."""
    try:
        with h5py.File(out) as file:
            found = file.attrs.get("source_digest"), file.attrs.get("identity")
    except OSError:
        return False
    return found == (source.digest, encoder.identity)


def _resume(
    encoder: FrozenEncoder, source: Source, partial: Path, batch_size: int, width: int
) -> int:
    """Return the number of images that an interrupted call embedded in complete batches."""
    wanted = {
        "encoder": encoder.identity,
        "input_size": encoder.input_size,
        "source": source.digest,
        "batch_size": batch_size,
    }
    facts = partial.with_suffix(".json")
    if not (facts.is_file() and partial.is_file() and json.loads(facts.read_text()) == wanted):
        partial.write_bytes(b"")
        write_json(facts, wanted)
        return 0
    row_bytes, written = 4 * width, partial.stat().st_size
    done = written // (row_bytes * batch_size) * batch_size
    if written >= row_bytes * len(source):
        done = len(source)
    os.truncate(partial, row_bytes * done)
    if done:
        log.info("%d of %d embeddings exist already", done, len(source))
    return done


def _publish(encoder: FrozenEncoder, source: Source, partial: Path, out: Path, width: int) -> None:
    features = np.memmap(partial, np.float32, "r", shape=(len(source), width))
    with atomic_path(out) as complete, NewFile(complete) as file:
        dataset = file.create_dataset("features", features.shape, np.float32)
        for start in range(0, len(features), _BLOCK):
            dataset[start : start + _BLOCK] = features[start : start + _BLOCK]
        for name, values in source.columns().items():
            text = isinstance(values, list)
            file.create_dataset(name, data=values, dtype=h5py.string_dtype() if text else None)
        file.attrs.update(
            encoder=encoder.name,
            timm_name=encoder.facts["timm_name"],
            digest=encoder.digest,
            input_size=encoder.input_size,
            identity=encoder.identity,
            **source.attributes,
        )
        if "coords" in file:  # where readers of TRIDENT's and CLAM's files look
            file["coords"].attrs.update(source.attributes)
    partial.unlink()
    partial.with_suffix(".json").unlink()
