"""Synthetic copies of public datasets, for the demo and the tests.

A forged dataset lies in the publisher's own layout and goes through the same reader and store as
the real one. A mark beside it, which stores, reports and dashboards repeat, keeps them apart.
"""

import json
import logging
import zlib

import numpy as np
from filelock import FileLock

from datamodules.core.atomic import atomic_folder
from datamodules.reader import DatasetReader
from datamodules.store.synthetic_mark import MARK

log = logging.getLogger(__name__)


def forge(dataset: DatasetReader, seed: int, images: int) -> bool:
    """Write a synthetic copy of a dataset below its root, unless something lies there.

    With the dataset's class, `seed` fixes every byte of about `images` images.

    Returns:
        Whether it was written; False when the folder was there already.
    """
    root = dataset.root
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f".{root.name}.lock")):
        if root.exists():
            return False
        rng = np.random.default_rng((seed, zlib.crc32(type(dataset).__name__.encode())))
        with atomic_folder(root, unique=False) as folder:
            type(dataset).forge(folder, rng, images)
            (folder / MARK).write_text(json.dumps({"seed": seed, "images": images}))
    log.info("%s: forged about %d synthetic images in %s", dataset.name, images, root)
    return True
