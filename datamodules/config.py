"""Typed settings of the data: the keys below `data` in a configuration."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from datamodules.core.config_ranges import NAMES, SEED_MAX, limited
from datamodules.core.options import MPP_MAX, MPP_MIN

SIDE_MAX, BATCH_MAX = 4096, 65_536
"""Pixels on a side of a patch or network input, and images in a batch, that fit into a memory."""


class Compression(Enum):
    """How a store keeps pixels."""

    none = "none"
    lossless = "lossless"


@dataclass
class DatasetConfig:
    """One dataset of a run; the key above it is the dataset's name in the run.

    Attributes:
        reader: the reader for its layout; the dataset's own name if empty.
        folder: folder of the published files, relative to `data.root`; the reader's default if
            empty.
        batch_size: images per round; its share by `data.size_power` if null.
        balance: name of the classification or detection task whose classes (detection: patches
            with and without an object) training draws equally often; not balanced if empty.
        patch_size: side of the stored patches in pixels; the reader's default if null.
        mpp: resolution of the stored patches in µm/px; `data.mpp` if null.
        compression: of its store; `data.compression` if null.
        weights: factor of each task's loss, by task name.
        class_weights: of segmentation tasks, by task name: a factor for each class in the cross
            entropy.
        input_size: probes: side of the network input in pixels; `data.image_size` if null.
        folds: probes: grouped folds, each held out in turn; 0 takes the official test split.
        area_share: probes: classes of its segmentation task. The share of a patch's labelled
            pixels that belongs to them is then the target of a regression.
        dense: probes: a segmentation or detection task, then predicted from the features of single
            places of an image.
        centre: probes: a regular expression that finds the centre or scanner in the path of a
            source or the name of its patient, in its first "(...)" if there is one; the report then
            has the robustness index.
        follow_links: read what links in its folder point to outside of it.
        options: the reader's own options (see `datasets show NAME`).
    """

    reader: str = ""
    folder: str = ""
    batch_size: int | None = limited(None, 1, BATCH_MAX)
    balance: str = ""
    patch_size: int | None = limited(None, 8, SIDE_MAX)
    mpp: float | None = limited(None, MPP_MIN, MPP_MAX)
    compression: Compression | None = None
    weights: dict[str, float] = limited({})
    class_weights: dict[str, list[float]] = limited({})
    input_size: int | None = limited(None, 32, SIDE_MAX)
    folds: int = limited(0, 0, 1000)
    area_share: list[str] = field(default_factory=list)
    dense: str = ""
    centre: str = ""
    follow_links: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class AugmentationConfig:
    """Random changes of a training patch.

    Attributes:
        scale_min: smallest share of the patch's area that a random crop keeps.
        color: strength of brightness, contrast, saturation and hue jitter on the device; 0
            disables it.
        blur: probability of a slight Gaussian blur on the device.
        stain: strength of HED stain jitter on the device; 0 disables it.
    """

    scale_min: float = limited(0.5, above=0, at_most=1)
    color: float = limited(0.2, 0, 1)
    blur: float = limited(0.1, 0, 1)
    stain: float = limited(0.05, 0, 1)


@dataclass
class DataConfig:
    """Settings shared by all datasets, and the datasets of the run.

    Attributes:
        root: folder of the datasets as published, each in its own folder.
        stores: folder of the prepared HDF5 stores.
        image_size: side of the network input in pixels.
        mpp: resolution of stored patches in µm/px, if the dataset's own is known.
        compression: "none" reads fastest; "lossless" (WebP for images, PNG for masks) needs less
            than half the disk and about 1 ms of CPU time per patch.
        batch_size: images per dataset and round.
        size_power: weight of large datasets: each one's share of the images of a round is
            proportional to its training images to this power. 0 is uniform, 1 proportional,
            1 / T a temperature T; a dataset's own `batch_size` sets its share explicitly.
        tasks_per_batch: datasets per micro-batch (K); 0 takes all of them.
        val_fraction: share of the training images held out, by whole groups, if no validation
            split is published.
        val_limit: maximum number of validation images per dataset; 0 takes all.
        workers: loader processes per rank; never more than there are cores.
        seed: of splits, order and augmentation.
        augmentation: see `AugmentationConfig`.
        forge: number of synthetic images, about, of each dataset that is missing below `root`;
            0 requires real data.
        train: datasets that train the encoder.
        unseen: datasets for probes only.
    """

    root: str = "data"
    stores: str = "data/stores"
    image_size: int = limited(224, 32, SIDE_MAX)
    mpp: float = limited(0.5, MPP_MIN, MPP_MAX)
    compression: Compression = Compression.none
    batch_size: int = limited(16, 1, BATCH_MAX)
    size_power: float = limited(0.0, 0, 4)
    tasks_per_batch: int = limited(0, 0)
    val_fraction: float = limited(0.1, 0, below=1)
    val_limit: int = limited(0, 0)
    workers: int = limited(4, 0, 1024)
    seed: int = limited(0, 0, SEED_MAX)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    forge: int = limited(0, 0)
    train: dict[str, DatasetConfig] = field(default_factory=dict, metadata=NAMES)
    unseen: dict[str, DatasetConfig] = field(default_factory=dict, metadata=NAMES)
