"""Readers by name; another package adds one through an entry point.

[project.entry-points."histology.readers"]
my_dataset = "my_package.my_dataset:MyDataset"
"""

import difflib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import ConfigError
from datamodules.reader import DatasetReader

GROUP = "histology.readers"

READERS = {
    # for training
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
    # unseen, for probes
    "bach": "datamodules.public.bach:BACH",
    "idc": "datamodules.public.idc:IDC",
    "breastpathq": "datamodules.public.breastpathq:BreastPathQ",
    # for training, of configs/pretrain16.yaml alone
    "camelyon17": "datamodules.public.camelyon17:Camelyon17",
    "chaoyang": "datamodules.public.chaoyang:Chaoyang",
    "consep": "datamodules.public.consep:CoNSeP",
    "crag": "datamodules.public.crag:CRAG",
    "monusac": "datamodules.public.monusac:MoNuSAC",
    "nuinsseg": "datamodules.public.nuinsseg:NuInsSeg",
    "ocelot": "datamodules.public.ocelot:OCELOT",
    "sicapv2": "datamodules.public.sicapv2:SICAPv2",
    "unitopatho": "datamodules.public.unitopatho:UniToPatho",
    # used by no recipe
    "bracs": "datamodules.public.bracs:BRACS",
    "crchisto": "datamodules.public.crchisto:CRCHisto",
    "lizard": "datamodules.public.lizard:Lizard",
    "mhist": "datamodules.public.mhist:MHIST",
    "dsb2018": "datamodules.public.dsb2018:DSB2018",
    "breakhis": "datamodules.public.breakhis:BreaKHis",
    "conic": "datamodules.public.conic:CoNIC",
    "kather2016": "datamodules.public.kather2016:Kather2016",
    "tnbc": "datamodules.public.tnbc:TNBC",
    # own data
    "class_folders": "datamodules.own_data.class_folders:ClassFolders",
    "image_masks": "datamodules.own_data.image_masks:ImageMasks",
    "coco_boxes": "datamodules.own_data.coco_boxes:CocoBoxes",
    "csv_table": "datamodules.own_data.csv_table:CsvTable",
}
CONVENTIONS = ("class_folders", "image_masks", "coco_boxes", "csv_table")  # readers of own data


def reader_names() -> list[str]:
    """Names of all readers, including those of other packages."""
    return [entry.name for entry in _entries()]


def public_names() -> list[str]:
    """Names of the readers of public datasets: all but the conventions for own data."""
    return [name for name in reader_names() if name not in CONVENTIONS]


def reader(name: str) -> type[DatasetReader]:
    """Return the class that reads a dataset.

    Raises:
        ConfigError: unknown name; the message gives the nearest known one.

    >>> reader("glas").title
    'GlaS gland segmentation'
    """
    for entry in _entries():
        if entry.name == name:
            loaded: type[DatasetReader] = entry.load()
            return loaded
    near = difflib.get_close_matches(name, reader_names(), 1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(reader_names())}"
    raise ConfigError(f"no reader is called '{name}'; {hint}")


def build(name: str, config: DatasetConfig, data: DataConfig) -> DatasetReader:
    """Return a reader for an entry of the configuration."""
    return reader(config.reader or name)(data, config, name)


def _entries() -> Iterator[EntryPoint]:
    """The readers of this package; then those of others, which are slower to look up."""
    yield from (EntryPoint(name, target, GROUP) for name, target in READERS.items())
    yield from entry_points(group=GROUP)
