"""From published annotations to targets: mask codes, instances, points."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.core import notes
from datamodules.core.config_ranges import limited
from datamodules.core.errors import LayoutError
from datamodules.core.options import ReaderOptions
from datamodules.core.records import Boxes, Mask, Task, TaskKind
from datamodules.formats.images import image_size, read_ids, read_mask


@dataclass(frozen=True)
class Codes:
    """What the pixel values of a mask mean; a picklable call target for `functools.partial`."""

    index: Mapping[int, int]  # class index, or the ignore index, of each published code

    def __call__(self, path: Path) -> Mask:
        """Read a mask file as class indices; other codes are refused."""
        mask = read_mask(path, white=255)  # one bit cannot hold codes: its white is none of them
        present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
        unknown = [code for code in present if code not in self.index]
        if unknown:
            known = ", ".join(str(code) for code in sorted(self.index))
            raise LayoutError(f"{path}: mask holds code {unknown[0]}, expected one of {known}")
        table = np.zeros(256, np.uint8)
        table[list(self.index)] = list(self.index.values())
        return table[mask]


def foreground(path: Path) -> Mask:
    """Background and foreground, (height, width) uint8 of 0 and 1, from a mask of instances."""
    return (read_ids(path) > 0).astype(np.uint8)


def fill_polygon(mask: Mask, outline: NDArray[np.float64], value: int) -> None:
    """Set the pixels of `mask` whose centre lies within an outline.

    Unlike cv2.fillPoly, which adds the pixels of the border, this keeps the outline's area: 100 by
    100 px stay so, and outlines that share a border share no pixel. Parts that an outline
    encloses twice lie outside (even-odd rule), as in MATLAB's poly2mask. The outline is (n, 2), x
    and y in pixels; (0, 0) is the image's upper left corner.

    >>> mask = np.zeros((3, 4), np.uint8)
    >>> fill_polygon(mask, np.array([[1, 0], [3, 0], [3, 2], [1, 2]], np.float64), 7)
    >>> mask.tolist()
    [[0, 7, 7, 0], [0, 7, 7, 0], [0, 0, 0, 0]]
    """
    height, width = mask.shape
    start, end = outline, np.roll(outline, -1, axis=0)
    upper, lower = (
        np.ceil(side(start[:, 1], end[:, 1]) - 0.5).clip(0, height).astype(np.int64)
        for side in (np.minimum, np.maximum)
    )
    edge = np.repeat(np.arange(len(outline)), lower - upper)  # of each row that it crosses
    if not len(edge):
        return
    first = np.repeat(np.cumsum(lower - upper) - (lower - upper), lower - upper)
    row = np.arange(len(edge)) - first + upper[edge]
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    crossing = start[edge, 0] + (row + 0.5 - start[edge, 1]) * slope
    column = np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)
    top, left = row.min(), column.min()
    crossed = np.zeros((row.max() - top + 1, column.max() - left + 1), np.int64)
    np.add.at(crossed, (row - top, column - left), 1)
    inside = crossed.cumsum(axis=1)[:, :-1] % 2 == 1
    mask[top : row.max() + 1, left : column.max()][inside] = value


@dataclass
class RareObjectOptions(ReaderOptions):
    """Options of readers of rare objects.

    Attributes:
        empty_share: share of the training tiles without any object that is kept.
    """

    empty_share: float = limited(0.25, 0, 1)


MITOSIS = Task(  # scores count mitotic figures only; look-alikes are a class of their own
    *("mitosis", TaskKind.DETECTION, ("mitotic figure", "hard negative")),
    positive="mitotic figure",
    object_size_um=12.5,
)


def nucleus_tasks(types: tuple[str, ...]) -> tuple[Task, Task]:
    """Segmentation and detection of nuclei of these types, from the same outlines.

    A prediction counts within 3 µm, the 12 px at 40x of PanNuke's authors.
    """
    detection = Task(
        *("nuclei_detection", TaskKind.DETECTION, types), object_size_um=8.0, match_distance_um=3.0
    )
    return Task("nuclei", TaskKind.SEGMENTATION, ("background", *types)), detection


def instance_boxes(ids: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The smallest box around each instance of a map (height, width); 0 is background.

    Returns:
        float32 (n, 4), x1, y1, x2, y2 in pixels, the right and lower edge exclusive, and the
        ids int64 (n,) in ascending order.
    """
    y, x = np.nonzero(ids)
    numbers, which = np.unique(ids[y, x].astype(np.int64), return_inverse=True)
    low = np.full((len(numbers), 2), np.iinfo(np.int64).max)
    high = np.zeros((len(numbers), 2), np.int64)
    points = np.stack([x, y], axis=1)
    np.minimum.at(low, which, points)
    np.maximum.at(high, which, points + 1)
    return np.concatenate([low, high], axis=1).astype(np.float32), numbers


def typed_boxes(where: str, ids: NDArray[Any], kinds: NDArray[Any]) -> Boxes:
    """The box around each nucleus, labelled with the class that most of its pixels have.

    Args:
        where: file and item, for notes.
        ids: number of the nucleus of each pixel, 0 for background.
        kinds: class of each pixel from 1, 0 for none; a nucleus without any is left out.
    """
    boxes, numbers = instance_boxes(ids)
    inside = ids > 0
    votes = np.zeros((len(numbers), int(kinds.max(initial=0)) + 1), np.int64)
    np.add.at(votes, (np.searchsorted(numbers, ids[inside]), kinds[inside]), 1)
    for _ in range(int(((votes > 0).sum(axis=1) > 1).sum())):
        notes.warning(where, "nucleus with pixels of several classes")
    known = votes[:, 1:].any(axis=1)
    for _ in range(int((~known).sum())):
        notes.skipped(where, "nucleus without class")
    return Boxes(boxes[known], votes[known, 1:].argmax(axis=1) if known.any() else votes[known, 0])


def boxes_around(
    image: Path, points: NDArray[np.float64], labels: NDArray[np.int64], side: float
) -> Boxes:
    """Square boxes of `side` pixels around centres (n, 2), x and y, cut off at the image's edge.

    Raises:
        LayoutError: a point lies outside of the image by more than half a box, or one place has
            two labels.
    """
    height, width = image_size(image)
    beyond = np.maximum(-points, points - [width, height]).max(axis=1, initial=-np.inf)
    if (beyond >= side / 2).any():
        x, y = points[beyond.argmax()]
        raise LayoutError(f"{image}: point ({x:g}, {y:g}) is outside its {width}x{height} px image")
    for _ in range(int((beyond > 0).sum())):
        notes.warning(image.name, "point outside of its image; its box is clipped")
    labelled = np.unique(np.column_stack([points, labels]), axis=0)
    _, counts = np.unique(labelled[:, :2], axis=0, return_counts=True)
    if (counts > 1).any():
        x, y = np.unique(labelled[:, :2], axis=0)[counts > 1][0]
        raise LayoutError(f"{image}: point ({x:g}, {y:g}) has labels of two classes")
    if len(labelled) < len(points):
        notes.warning(image.name, "the same point twice")
    centres = points.astype(np.float32)
    corners = np.concatenate([centres - side / 2, centres + side / 2], axis=1)
    edge = np.array([width, height] * 2, np.float32)
    return Boxes(corners.clip(0, edge).astype(np.float32), labels)
