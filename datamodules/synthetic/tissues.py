"""What synthetic tissue is made of: tissues, nucleus types, and the styles of organs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from datamodules.core.errors import ConfigError


class Tissue(StrEnum):
    """The nine tissues of NCT-CRC-HE-100K, in its order; the position is the region index."""

    ADIPOSE = "adipose"
    BACKGROUND = "background"
    DEBRIS = "debris"
    LYMPHOID = "lymphoid"
    MUCUS = "mucus"
    MUSCLE = "muscle"
    NORMAL = "normal"
    STROMA = "stroma"
    TUMOUR = "tumour"

    @property
    def code(self) -> int:
        """Value of this tissue in `Scene.regions`."""
        return list(Tissue).index(self)


class NucleusType(IntEnum):
    """The five nucleus types of PanNuke, in its order."""

    NEOPLASTIC = 0
    INFLAMMATORY = 1
    CONNECTIVE = 2
    DEAD = 3
    EPITHELIAL = 4


@dataclass(frozen=True)
class OrganStyle:
    """How an organ arranges its epithelium and what lies around it.

    Attributes:
        gland_um: radius of a benign gland.
        height_um: height of its lining; the radius or more means cells throughout, no lumen.
        elongation: 1 is round, 2 is twice as long as wide.
        gap_um: stroma between neighbouring glands.
        folding: how much outline and lumen wave, as a share of the radius.
        goblets: share of the lining taken by mucus-filled goblet cells.
        nucleus_um: radius of a benign epithelial nucleus.
        columnar: length to width of that nucleus; its long axis points to the lumen.
        rows: rows of nuclei in the benign lining.
        spindles: connective nuclei per 1000 um2 of stroma.
        lymphocytes: inflammatory nuclei per 1000 um2 of stroma.
        beside: tissues that may lie in the same field, each with its probability.
    """

    gland_um: float = 26.0
    height_um: float = 13.0
    elongation: float = 1.3
    gap_um: float = 10.0
    folding: float = 0.10
    goblets: float = 0.0
    nucleus_um: float = 3.4
    columnar: float = 1.15
    rows: int = 1
    spindles: float = 2.2
    lymphocytes: float = 1.2
    beside: tuple[tuple[Tissue, float], ...] = (
        (Tissue.LYMPHOID, 0.2),
        (Tissue.ADIPOSE, 0.1),
        (Tissue.MUSCLE, 0.1),
        (Tissue.BACKGROUND, 0.1),
    )

    @property
    def stratified(self) -> bool:
        """Whether benign cells fill the gland (squamous epithelium, plates of liver)."""
        return self.height_um >= 0.95 * self.gland_um


_COLON = OrganStyle(
    gland_um=32.0,
    height_um=20.0,
    elongation=1.35,
    gap_um=9.0,
    folding=0.05,
    goblets=0.75,
    nucleus_um=3.1,
    columnar=1.6,
    lymphocytes=4.5,
    beside=(
        (Tissue.LYMPHOID, 0.25),
        (Tissue.MUSCLE, 0.25),
        (Tissue.MUCUS, 0.2),
        (Tissue.BACKGROUND, 0.15),
    ),
)
_BREAST = OrganStyle(
    gland_um=17.0,
    height_um=10.0,
    elongation=1.4,
    gap_um=7.0,
    rows=2,
    spindles=1.6,
    beside=((Tissue.ADIPOSE, 0.45), (Tissue.LYMPHOID, 0.2), (Tissue.BACKGROUND, 0.1)),
)
_PROSTATE = OrganStyle(
    gland_um=38.0,
    height_um=13.0,
    elongation=1.5,
    gap_um=14.0,
    folding=0.20,
    rows=2,
    spindles=3.2,
    lymphocytes=0.5,
    beside=((Tissue.MUSCLE, 0.45), (Tissue.LYMPHOID, 0.1), (Tissue.BACKGROUND, 0.1)),
)
_LUNG = OrganStyle(
    gland_um=46.0,
    height_um=7.0,
    elongation=1.2,
    gap_um=4.0,
    folding=0.14,
    nucleus_um=3.1,
    columnar=1.0,
    lymphocytes=2.0,
    beside=((Tissue.LYMPHOID, 0.25), (Tissue.DEBRIS, 0.15), (Tissue.BACKGROUND, 0.2)),
)
_TUBULES = OrganStyle(gland_um=21.0, height_um=11.0, gap_um=2.5, columnar=1.0, spindles=1.2)
_CORDS = OrganStyle(gland_um=14.0, height_um=14.0, elongation=2.4, gap_um=2.0, nucleus_um=3.6)
_FOLLICLES = OrganStyle(gland_um=40.0, height_um=7.0, elongation=1.1, gap_um=4.0, folding=0.04)
_NESTS = OrganStyle(gland_um=34.0, height_um=34.0, elongation=1.8, gap_um=12.0, folding=0.14)
_GLANDULAR = OrganStyle(gland_um=27.0, height_um=16.0, goblets=0.3, columnar=1.5)

ORGANS: dict[str, OrganStyle] = {
    "adrenal": _CORDS,
    "bile-duct": _GLANDULAR,
    "bladder": _NESTS,
    "bone": _NESTS,
    "breast": _BREAST,
    "cervix": _NESTS,
    "colon": _COLON,
    "esophagus": _NESTS,
    "head-neck": _NESTS,
    "kidney": _TUBULES,
    "liver": _CORDS,
    "lung": _LUNG,
    "lymph-node": OrganStyle(gland_um=22.0, gap_um=20.0, lymphocytes=9.0),
    "ovary": _GLANDULAR,
    "pancreas": OrganStyle(gland_um=18.0, height_um=14.0, gap_um=3.0),
    "prostate": _PROSTATE,
    "skin": _NESTS,
    "soft-tissue": _NESTS,
    "stomach": OrganStyle(gland_um=24.0, height_um=16.0, goblets=0.4, gap_um=6.0),
    "testis": OrganStyle(gland_um=55.0, height_um=34.0, gap_um=8.0, rows=3),
    "thyroid": _FOLLICLES,
    "uterus": _GLANDULAR,
}
"""Organ name to style."""


def organ_style(organ: str) -> OrganStyle:
    """Style of an organ.

    Raises:
        ConfigError: the organ has no style.
    """
    if organ not in ORGANS:
        known = ", ".join(ORGANS)
        raise ConfigError(f"Synthetic tissue has no organ {organ!r}; choose one of: {known}.")
    return ORGANS[organ]
