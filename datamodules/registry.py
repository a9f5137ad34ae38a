"""The readers by name. Another package adds one through an entry point.

[project.entry-points."histology.readers"]
my_dataset = "my_package.my_dataset:MyDataset"
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import entry_points

from datamodules.base import PathologyDataModule
from datamodules.errors import ConfigError
from datamodules.settings import DataConfig, DatasetConfig

GROUP = "histology.readers"

READERS = {
    # what the encoder is trained on
    "nct_crc": "datamodules.nct_crc:NCTCRC",
    "pcam": "datamodules.pcam:PCam",
    "lc25000": "datamodules.lc25000:LC25000",
    "gleason_tma": "datamodules.gleason_tma:GleasonTMA",
    "bcss": "datamodules.bcss:BCSS",
    "glas": "datamodules.glas:GlaS",
    "midogpp": "datamodules.midogpp:MIDOGpp",
    "tupac16": "datamodules.tupac16:TUPAC16",
    "pannuke": "datamodules.pannuke:PanNuke",
    "monuseg": "datamodules.monuseg:MoNuSeg",
    # what it never sees
    "bach": "datamodules.bach:BACH",
    "idc": "datamodules.idc:IDC",
    "breastpathq": "datamodules.breastpathq:BreastPathQ",
    # in reserve
    "dsb2018": "datamodules.dsb2018:DSB2018",
    "breakhis": "datamodules.breakhis:BreaKHis",
    "conic": "datamodules.conic:CoNIC",
    "kather2016": "datamodules.kather2016:Kather2016",
    "ocelot": "datamodules.ocelot:OCELOT",
    "sicapv2": "datamodules.sicapv2:SICAPv2",
    "tnbc": "datamodules.tnbc:TNBC",
    # own data
    "class_folders": "datamodules.class_folders:ClassFolders",
    "image_masks": "datamodules.image_masks:ImageMasks",
    "coco_boxes": "datamodules.coco_boxes:CocoBoxes",
    "csv_table": "datamodules.csv_table:CsvTable",
}
CONVENTIONS = ("class_folders", "image_masks", "coco_boxes", "csv_table")
"""Readers of own data: they describe no public dataset."""


def reader_names() -> list[str]:
    """Names of all readers, those of other packages included."""
    return [*READERS, *(entry.name for entry in entry_points(group=GROUP))]


def public_names() -> list[str]:
    """Names of the readers of public datasets: all but the conventions for own data."""
    return [name for name in reader_names() if name not in CONVENTIONS]


def reader(name: str) -> type[PathologyDataModule]:
    """The class that reads a dataset.

    Raises:
        ConfigError: unknown name, with the nearest known one.
    """
    if name in READERS:
        module, attribute = READERS[name].split(":")
        found: type[PathologyDataModule] = getattr(importlib.import_module(module), attribute)
        return found
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            loaded: type[PathologyDataModule] = entry.load()
            return loaded
    near = difflib.get_close_matches(name, reader_names(), 1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(reader_names())}"
    raise ConfigError(f"no reader is called '{name}'; {hint}")


def build(name: str, config: DatasetConfig, data: DataConfig) -> PathologyDataModule:
    """The dataset that a configuration entry describes."""
    return reader(config.reader or name)(data, config, name)
