"""Synthetic H&E slides, from which fields of view with exact ground truth are drawn.

Readers forge small copies of public datasets from them, so that a machine without data can run
everything. Malignancy changes nuclei (larger, darker, uneven, crowded) and architecture (glands
fuse and dissolve) in every task alike, so that one task teaches what another can use.

The fields resemble tissue and are none: no result on them means anything for real slides.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.synthetic.canvas import Canvas, Points, separate
from datamodules.synthetic.nuclei import draw_nuclei, populate
from datamodules.synthetic.painting import paint
from datamodules.synthetic.plan import LUMEN, Plan, lay_out
from datamodules.synthetic.stain import Stain
from datamodules.synthetic.tissues import ORGANS, Tissue

Range = float | tuple[float, float]  # a value, or the lowest and highest to draw it from

_EMPTY = (Tissue.ADIPOSE, Tissue.BACKGROUND, Tissue.MUCUS)


@dataclass(frozen=True)
class Scene:
    """One field of view and what is in it; maps have the shape (height, width).

    Instances count from 1 without a gap; each is one connected piece and no two share an edge.
    Points are x, y in pixels; pixel `i` is `[i, i + 1)`.
    """

    image: NDArray[np.uint8]  # (height, width, 3), RGB
    nuclei: NDArray[np.int32]  # instances, 0 for background
    nucleus_types: NDArray[np.uint8]  # (n,), `NucleusType` of instance `i + 1`
    glands: NDArray[np.int32]  # instances of glands and tumour nests, with their lumina
    regions: NDArray[np.uint8]  # `Tissue`; glands are NORMAL or TUMOUR
    mitoses: NDArray[np.float32]  # (m, 2)
    lookalikes: NDArray[np.float32]  # (k, 2), dark bodies that are not mitoses
    cellularity: float  # share of the field taken by tumour cells, 0 to 1

    def boxes(self) -> NDArray[np.float32]:
        """Bounding box of each nucleus, float32 (n, 4), x1, y1, x2, y2 in pixels."""
        slices = ndimage.find_objects(self.nuclei)
        boxes = [(x.start, y.start, x.stop, y.stop) for y, x in slices]
        return np.array(boxes, np.float32).reshape(-1, 4)


@dataclass(frozen=True)
class Slide:
    """A slide from which fields of view are drawn. The same state of `rng` gives the same bytes.

    >>> slide = Slide(np.random.default_rng(0), organ="breast", mpp=0.5)
    >>> slide.field(64, 96, malignancy=0.8).image.shape
    (64, 96, 3)
    """

    rng: np.random.Generator  # the only source of randomness
    organ: str = "colon"  # a key of `ORGANS`
    mpp: float = 0.5  # pixel size in µm, at most 1
    stain: Stain = Stain()  # noqa: RUF009 - it is frozen

    def field(
        self,
        height: int,
        width: int | None = None,
        tissue: Tissue | None = None,
        malignancy: Range = 0.0,
        epithelium: Range | None = None,
        mitoses: int | None = None,
        lookalikes: int | None = None,
        beside: Collection[Tissue] = (),
    ) -> Scene:
        """Draw a field of view.

        Args:
            height: rows of the image.
            width: columns of the image; None is a square.
            tissue: fills the field; None mixes epithelium, stroma and others.
            malignancy: 0 (benign) to 1 (highest grade).
            epithelium: wished share of the field for glands or tumour, 0 to 1; None leaves it to
                chance in a mixed field and fills a NORMAL or TUMOUR one.
            mitoses: how many; None draws a number that grows with tumour area and malignancy.
            lookalikes: the same for dark bodies that are not mitoses.
            beside: tissues that a mixed field is to hold in any case.
        """
        grade, share = (
            self.rng.uniform(*value) if isinstance(value, tuple) else value
            for value in (malignancy, epithelium)
        )
        canvas = Canvas(self.rng, height, height if width is None else width, self.mpp)
        plan = lay_out(canvas, ORGANS[self.organ], tissue, beside, grade or 0.0, share)
        bodies, dividing = _dark_bodies(plan, mitoses, lookalikes)
        nuclei = populate(plan, bodies[:dividing], bodies[dividing:])
        drawn = draw_nuclei(plan, nuclei, foremost=len(bodies))
        drawn, rows = separate(drawn, least_px=max(3, round(3.0 / self.mpp**2)))
        nuclei, points = nuclei[rows - 1], (bodies / self.mpp).astype(np.float32)
        return Scene(
            image=self.stain.develop(self.rng, paint(plan, drawn, nuclei, bodies[:dividing])),
            nuclei=drawn,
            nucleus_types=nuclei["type"],
            glands=separate(plan.ids, least_px=1)[0],
            regions=plan.regions,
            mitoses=points[:dividing],
            lookalikes=points[dividing:],
            cellularity=float(((plan.regions == Tissue.TUMOUR) & (plan.holes != LUMEN)).mean()),
        )


def slides(
    rng: np.random.Generator,
    images: int,
    organs: Sequence[str] = ("colon",),
    mpp: float = 0.5,
    each: int = 8,
    least: int = 4,
) -> Iterator[tuple[int, int, Slide]]:
    """Index of the slide, index of the field on it, and the slide for about `images` fields.

    There are `each` fields on a slide, and `least` slides at least; each has a stain of its own.
    """
    count = max(least, images // each)
    for index in range(count):
        slide = Slide(rng, organs[index % len(organs)], mpp, Stain.draw(rng))
        for number in range(-(-max(images, least * min(each, 2)) // count)):
            yield index, number, slide


def append_rows(path: Path, *rows: Iterable[object]) -> None:
    """Append rows to a table, which is made with its folders where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)


def _dark_bodies(plan: Plan, mitoses: int | None, lookalikes: int | None) -> tuple[Points, int]:
    """Positions in µm of mitoses and then look-alikes, and the number of mitoses.

    They lie apart, in solid tumour where there is some, and are no more than there is room for.
    """
    canvas, size = plan.canvas, plan.canvas.size_um
    tumour_mm2 = (plan.regions == Tissue.TUMOUR).mean() * size.prod() / 1e6
    rates = 60.0 * plan.malignancy**2, 10.0 + 50.0 * plan.malignancy
    drawn = canvas.rng.poisson([rate * tumour_mm2 for rate in rates])
    dividing = int(drawn[0]) if mitoses is None else mitoses
    count = dividing + (int(drawn[1]) if lookalikes is None else lookalikes)
    points = canvas.scatter(15.0, 0.4)
    points = points[((points > 4.0) & (points < size - 4.0)).all(axis=1)]
    where = canvas.indices(points)
    rank = canvas.rng.random(len(points)) + (plan.regions[where] == Tissue.TUMOUR)
    rank -= (plan.holes[where] == LUMEN) | np.isin(plan.regions[where], _EMPTY)
    return points[np.argsort(-rank)[:count]], min(dividing, len(points))
