"""What synthetic tissue is made of: tissues, nucleus types, and the styles of organs."""

from enum import IntEnum
from typing import NamedTuple


class Tissue(IntEnum):
    """The nine tissues of NCT-CRC-HE-100K, in its order."""

    ADIPOSE = 0
    BACKGROUND = 1
    DEBRIS = 2
    LYMPHOID = 3
    MUCUS = 4
    MUSCLE = 5
    NORMAL = 6
    STROMA = 7
    TUMOUR = 8


class NucleusType(IntEnum):
    """The five nucleus types of PanNuke, in its order."""

    NEOPLASTIC = 0
    INFLAMMATORY = 1
    CONNECTIVE = 2
    DEAD = 3
    EPITHELIAL = 4


class Organ(NamedTuple):
    """How an organ arranges its epithelium and what lies around it; lengths are in µm."""

    gland: float  # radius of a benign gland
    height: float  # of its lining; the radius or more means cells throughout, without a lumen
    gap: float = 10.0  # stroma between neighbouring glands
    elongation: float = 1.3  # 1 is round, 2 is twice as long as wide
    folding: float = 0.10  # how much the outline waves, as a share of the radius
    goblets: float = 0.0  # share of the lining taken by mucus-filled goblet cells
    columnar: float = 1.15  # length to width of a nucleus, whose long axis points to the lumen
    spindles: float = 2.2  # connective nuclei per 1000 µm² of stroma
    lymphocytes: float = 1.2  # inflammatory nuclei per 1000 µm² of stroma


_NESTS = Organ(34.0, 34.0, 12.0, elongation=1.8, folding=0.14)
_CORDS = Organ(14.0, 14.0, 2.0, elongation=2.4)
_GLANDS = Organ(27.0, 16.0, goblets=0.3, columnar=1.5)

ORGANS = {
    **dict.fromkeys(("bladder", "bone", "cervix", "esophagus", "head-neck", "skin"), _NESTS),
    **dict.fromkeys(("bile-duct", "ovary", "uterus"), _GLANDS),
    **dict.fromkeys(("adrenal", "liver"), _CORDS),
    "breast": Organ(17.0, 10.0, 7.0, spindles=1.6),
    "colon": Organ(32.0, 20.0, 9.0, 1.35, 0.05, 0.75, 1.6, 2.2, 4.5),
    "kidney": Organ(21.0, 11.0, 2.5, columnar=1.0, spindles=1.2),
    "lung": Organ(46.0, 7.0, 4.0, 1.2, 0.14, columnar=1.0, lymphocytes=2.0),
    "lymph-node": Organ(22.0, 13.0, 20.0, lymphocytes=9.0),
    "pancreas": Organ(18.0, 14.0, 3.0),
    "prostate": Organ(38.0, 13.0, 14.0, 1.5, 0.2, spindles=3.2, lymphocytes=0.5),
    "soft-tissue": _NESTS,
    "stomach": Organ(24.0, 16.0, 6.0, goblets=0.4),
    "testis": Organ(55.0, 34.0, 8.0),
    "thyroid": Organ(40.0, 7.0, 4.0, elongation=1.1, folding=0.04),
}
"""Style of each organ, by name."""
