"""Features of a folder of images, for whatever comes after."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch

from datamodules.errors import DatasetNotFoundError
from datamodules.images import IMAGE_SUFFIXES, read_image
from datamodules.tiling import Cutter, View
from models.frozen import FrozenEncoder


def embed_folder(
    encoder: FrozenEncoder, folder: Path, out: Path, size: int, batch_size: int
) -> int:
    """Embed every image below a folder and write an HDF5 file, complete or not at all.

    The file holds `features` float32 (n, d) and `paths` (n,), relative to the folder, and as
    attributes the encoder's name, the digest of its weights and the input size in pixels. An
    image is scaled until its shorter side fits the input, and its centre is taken.

    Args:
        encoder: frozen encoder.
        folder: searched with all folders below it.
        out: HDF5 file to write.
        size: side of the network input in pixels.
        batch_size: images per forward pass.

    Returns:
        How many images were embedded.

    Raises:
        DatasetNotFoundError: no image lies there.
        ImageError: an image does not decode.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DatasetNotFoundError(f"{folder}: no image file there or below")
    cutter = Cutter((), size, View.WHOLE, 0.0)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    try:
        with h5py.File(partial, "w") as file:
            names = [str(path.relative_to(folder)) for path in paths]
            file.create_dataset("paths", data=names, dtype=h5py.string_dtype())
            file.attrs.update(encoder=encoder.name, digest=encoder.digest, input_size=size)
            for start in range(0, len(paths), batch_size):
                images = [
                    cutter.cut(read_image(path), {}, 0.0)[0].image
                    for path in paths[start : start + batch_size]
                ]
                values = encoder.embed(torch.from_numpy(np.stack(images))).numpy()
                if start == 0:
                    file.create_dataset("features", (len(paths), values.shape[1]), np.float32)
                file["features"][start : start + len(values)] = values
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return len(paths)
