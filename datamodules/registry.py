"""Readers by name; another package adds one through an entry point.

[project.entry-points."histology.readers"]
my_dataset = "my_package.my_dataset:MyDataset"
"""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import ConfigError
from datamodules.reader import DatasetReader

GROUP = "histology.readers"

READERS = {
    # for training the encoder
    "nct_crc": "datamodules.public.nct_crc:NCTCRC",
    "pcam": "datamodules.public.pcam:PCam",
    "lc25000": "datamodules.public.lc25000:LC25000",
    "gleason_tma": "datamodules.public.gleason_tma:GleasonTMA",
    "bcss": "datamodules.public.bcss:BCSS",
    "glas": "datamodules.public.glas:GlaS",
    "midogpp": "datamodules.public.midogpp:MIDOGpp",
    "tupac16": "datamodules.public.tupac16:TUPAC16",
    "pannuke": "datamodules.public.pannuke:PanNuke",
    "monuseg": "datamodules.public.monuseg:MoNuSeg",
    # never seen in training
    "bach": "datamodules.public.bach:BACH",
    "idc": "datamodules.public.idc:IDC",
    "breastpathq": "datamodules.public.breastpathq:BreastPathQ",
    # in reserve
    "dsb2018": "datamodules.public.dsb2018:DSB2018",
    "breakhis": "datamodules.public.breakhis:BreaKHis",
    "conic": "datamodules.public.conic:CoNIC",
    "kather2016": "datamodules.public.kather2016:Kather2016",
    "ocelot": "datamodules.public.ocelot:OCELOT",
    "sicapv2": "datamodules.public.sicapv2:SICAPv2",
    "tnbc": "datamodules.public.tnbc:TNBC",
    # own data
    "class_folders": "datamodules.own_data.class_folders:ClassFolders",
    "image_masks": "datamodules.own_data.image_masks:ImageMasks",
    "coco_boxes": "datamodules.own_data.coco_boxes:CocoBoxes",
    "csv_table": "datamodules.own_data.csv_table:CsvTable",
}
CONVENTIONS = ("class_folders", "image_masks", "coco_boxes", "csv_table")
"""Readers of own data, which describe no public dataset."""


def _entries() -> dict[str, EntryPoint]:
    """Entry points of all readers by name, those of other packages last."""
    entries = {name: EntryPoint(name, target, GROUP) for name, target in READERS.items()}
    for entry in entry_points(group=GROUP):
        entries.setdefault(entry.name, entry)
    return entries


def public_names() -> list[str]:
    """Names of the readers of public datasets: all but the conventions for own data."""
    return [name for name in _entries() if name not in CONVENTIONS]


def reader(name: str) -> type[DatasetReader]:
    """The class that reads a dataset.

    Raises:
        ConfigError: unknown name, with the nearest known one.
    """
    entries = _entries()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(entries)}"
        raise ConfigError(f"no reader is called '{name}'; {hint}")
    loaded: type[DatasetReader] = entries[name].load()
    return loaded


def build(name: str, config: DatasetConfig, data: DataConfig) -> DatasetReader:
    """Build the reader of a configuration entry."""
    return reader(config.reader or name)(data, config, name)
