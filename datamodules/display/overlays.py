"""Outlines of regions and boxes of objects drawn on a patch, in distinguishable colours."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from datamodules.core.records import Task, TaskKind

DENSE = (TaskKind.SEGMENTATION, TaskKind.DETECTION)  # drawn on the image; others stand below it

# Colours absent from haematoxylin and eosin. The first four are also distinguishable for
# colour-blind readers: at least 55 in CIELAB under Machado's simulations (IEEE TVCG 15(6), 2009)
# of the three kinds of dichromacy.
_STRONG = ("#00e000", "#000000", "#1030ff", "#ffffff", "#ff1020", "#00e5ff", "#ffe600", "#ff7f00")
_ZOOM = 2  # drawn pixels per image pixel, so that outlines stay thin


def class_colours(tasks: Sequence[Task]) -> dict[str, str]:
    """Return a colour for each drawn class; a name has the same colour in all tasks."""
    drawn = [name for task in tasks if task.kind in DENSE for name in task.classes]
    names = dict.fromkeys(name for name in drawn if name != "background")
    if len(names) <= len(_STRONG):
        return dict(zip(names, _STRONG, strict=False))
    wheel = colormaps["gist_rainbow"](np.linspace(0, 1, len(names)))
    return {name: to_hex(colour) for name, colour in zip(names, wheel, strict=True)}


def show_patch(
    axes: Axes,
    image: NDArray[np.uint8],
    masks: Sequence[tuple[Task, NDArray[np.uint8]]] = (),
    colours: dict[str, str] | None = None,
) -> None:
    """Show a patch, (side, side, 3) uint8, with the outlines of its masks, (side, side) uint8.

    The unit of the axes becomes the patch's pixel.
    """
    side = len(image)
    canvas = _enlarge(image)
    for task, mask in masks:
        paint_outlines(canvas, _enlarge(mask), task, colours or {})
    axes.imshow(canvas, interpolation="antialiased", extent=(0, side, side, 0))
    axes.set_xlim(0, side)
    axes.set_ylim(side, 0)


def paint_outlines(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], task: Task, colours: dict[str, str]
) -> None:
    """Paint the inner edge of each class into an image, and a grey veil over unlabelled pixels.

    Inner edges of two touching regions lie side by side: neither covers the other.
    """
    # Without a background class, edges meet everywhere and need more width.
    width = 2 if "background" in task.classes else 4
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    ignored = mask == task.ignore_index
    image[ignored] = image[ignored] // 2 + 96
    for index, name in enumerate(task.classes):
        if name in colours:
            inside = (mask == index).astype(np.uint8)
            edge = inside - np.asarray(cv2.erode(inside, kernel), np.uint8)
            image[edge.astype(bool)] = np.array(to_rgb(colours[name])) * 255


def draw_boxes(
    axes: Axes, xyxy: NDArray[np.float32], colours: Sequence[str], lines: Sequence[str] = ()
) -> None:
    """Draw boxes, (n, 4) in pixels of the patch, each in its colour and line style (solid)."""
    width = 0.6 if len(xyxy) > 10 else 1.2
    styles = lines or ["-"] * len(xyxy)
    for box, colour, style in zip(xyxy.tolist(), colours, styles, strict=True):
        left, top, right, bottom = box
        line: dict[str, Any] = {"edgecolor": colour, "linewidth": width, "linestyle": style}
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **line))


def _enlarge(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
