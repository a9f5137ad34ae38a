"""Outlines of objects in Aperio ImageScope's XML."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.core import notes
from datamodules.core.errors import LayoutError
from datamodules.core.records import Boxes, Mask
from datamodules.formats.annotations import fill_polygon
from datamodules.formats.cells import shown
from datamodules.formats.images import image_size
from datamodules.formats.text_files import label
from datamodules.formats.xml_files import attribute, read_xml

_CHILDREN = {  # known elements within one another; of a misspelled one the objects would get lost
    "Annotations": ("Annotation",),
    "Annotation": ("Attributes", "Regions", "Plots"),
    "Regions": ("Region", "RegionAttributeHeaders"),
    "Region": ("Attributes", "Vertices"),
    "Vertices": ("Vertex",),
}
_LARGEST = 0.1  # share of a field that one object can take; a larger outline is that of the field
_BEYOND = 20  # pixels; the published outlines at hand leave their image by 3 at most


@dataclass(frozen=True)
class Outline:
    """An outlined region."""

    points: NDArray[np.float64]  # (n, 2), x and y in pixels from the image's edge
    hole: bool = False  # what lies in it does not belong to any object


def resolution(root: Path, xml: Path, published: float) -> float:
    """µm per pixel that a file states, which must be of the order of the published value.

    Where it states none, the published value is taken, with a warning.
    """
    where, head = label(root, xml), read_xml(root, xml)
    if not head.get("MicronsPerPixel", "").strip():
        notes.warning(where, f"no MicronsPerPixel; taken as {published:g}")
        return published
    mpp = attribute(where, head, "MicronsPerPixel")
    if mpp == 0:
        notes.warning(where, f"MicronsPerPixel is 0; taken as {published:g}")
        return published
    if not published / 2 < mpp < published * 2:
        raise LayoutError(f"{where}: MicronsPerPixel is {mpp:g}, published are {published:g}")
    return mpp


def read_outlines(root: Path, xml: Path, size: tuple[int, int]) -> list[Outline]:
    """The outlines of a file's one layer of objects, in its order.

    Left out, and counted, are those without area, outside of the image (whose height and width is
    `size`), or of the field itself.

    Raises:
        LayoutError: no Aperio XML, several layers with regions, or a vertex that is no point.
    """
    layers = read_layers(root, xml, size, _LARGEST)
    if len(layers) > 1:
        problem = f"{len(layers)} annotation layers hold regions; keep that of the objects"
        raise LayoutError(f"{label(root, xml)}: {problem}")
    return [outline for _, outlines in layers for outline in outlines]


def read_layers(
    root: Path, xml: Path, size: tuple[int, int], largest: float
) -> list[tuple[str, list[Outline]]]:
    """The name and the outlines of every layer with regions; see `read_outlines`.

    A layer has the name of its first attribute. Outlines that take more than the share `largest`
    of the field are those of the field.
    """
    where, head = label(root, xml), read_xml(root, xml)
    if head.tag != "Annotations":
        raise LayoutError(f"{where}: begins with {head.tag}, expected Annotations")
    for parent in head.iter():
        for child in parent if parent.tag in _CHILDREN else ():
            if child.tag not in _CHILDREN[parent.tag]:
                problem = f"{parent.tag} holds the unknown element {shown(child.tag)}"
                raise LayoutError(f"{where}: {problem}")
    layers = []
    for layer in head.iter("Annotation"):
        regions = layer.findall("Regions/Region")
        numbers = [region.get("Id") for region in regions]
        if len(set(numbers)) < len(numbers):
            twice = next(number for number in numbers if numbers.count(number) > 1)
            raise LayoutError(f"{where}: Region {twice} occurs twice")
        found = [_outline(where, region) for region in regions]
        attribute = layer.find("Attributes/Attribute")
        name = "" if attribute is None else attribute.get("Name", "").strip()
        if regions:
            layers.append((name, [one for one in found if _is_object(where, one, size, largest)]))
    return layers


def _is_object(where: str, outline: Outline, size: tuple[int, int], largest: float) -> bool:
    """Whether an outline is one of an object in the image; else the reason is noted."""
    points, edge = outline.points, np.array(size[::-1])
    area = cv2.contourArea(points.astype(np.float32)) if len(points) > 2 else 0.0
    if area == 0:
        notes.skipped(where, "outline without area")
    elif (points.max(axis=0) <= 0).any() or (points.min(axis=0) >= edge).any():
        notes.skipped(where, "outline outside of its image")
    elif area > largest * edge.prod() and not outline.hole:
        notes.skipped(where, "outline as large as the field")
    else:
        if (points < -_BEYOND).any() or (points > edge + _BEYOND).any():
            notes.warning(where, "outline far beyond its image; it is clipped")
        return True
    return False


def _outline(where: str, region: ElementTree.Element) -> Outline:
    at = f"{where}, Region {region.get('Id')}"
    vertices = region.iterfind("Vertices/Vertex")
    points = [(attribute(at, v, "X"), attribute(at, v, "Y")) for v in vertices]
    negative = region.get("NegativeROA", "0").strip()
    if negative not in ("0", "1"):
        raise LayoutError(f"{at}: NegativeROA is '{negative}', expected 0 or 1")
    return Outline(np.array(points, np.float64).reshape(-1, 2), negative == "1")


def filled(root: Path, xml: Path, image: Path) -> Mask:
    """Background and object, uint8, of the image's size; holes are background."""
    mask = np.zeros(image_size(image), np.uint8)
    outlines = read_outlines(root, xml, (mask.shape[0], mask.shape[1]))
    for outline in sorted(outlines, key=lambda one: one.hole):
        fill_polygon(mask, outline.points, 0 if outline.hole else 1)
    return mask


def surrounded(root: Path, xml: Path, image: Path) -> Boxes:
    """A box around every object, clipped to the image, of class 0."""
    size = image_size(image)
    with notes.collecting():  # what is odd is noted when the mask is filled
        outlines = read_outlines(root, xml, size)
    return boxes_of([(outline, 0) for outline in outlines], size)


def boxes_of(outlines: list[tuple[Outline, int]], size: tuple[int, int]) -> Boxes:
    """A box around every outline that is no hole, clipped to the image, with its class."""
    objects = [(outline.points, kind) for outline, kind in outlines if not outline.hole]
    corners = [np.concatenate([line.min(axis=0), line.max(axis=0)]) for line, _ in objects]
    xyxy = np.array(corners, np.float32).reshape(-1, 4).clip(0, [*size[::-1], *size[::-1]])
    return Boxes(xyxy.astype(np.float32), np.array([kind for _, kind in objects], np.int64))


def outlines_xml(ids: NDArray[np.int32], mpp: float, layers: Mapping[str, Iterable[int]]) -> str:
    """Aperio XML of a map of objects, one layer for each name, which holds the objects `layers`.

    Like those of the real files, outlines of objects at the border reach out of the image.
    """
    texts, boxes = [], ndimage.find_objects(ids)
    for layer, (name, numbers) in enumerate(layers.items(), start=1):
        regions = []
        for number in numbers:
            y, x = boxes[number - 1]
            mask = (ids[y, x] == number).astype(np.uint8)
            # Of four subpixels each, so that the outline runs around the pixels' centres.
            fine = mask.repeat(2, axis=0).repeat(2, axis=1)
            pieces, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            outline = max(pieces, key=len).reshape(-1, 2) / 2 + np.array([x.start, y.start])
            vertices = np.where(outline == 0, -2.0, outline + 0.25).tolist()
            text = "".join(f'<Vertex X="{x:.6f}" Y="{y:.6f}"/>' for x, y in vertices)
            regions.append(f'<Region Id="{number}"><Vertices>{text}</Vertices></Region>')
        title = f'<Attributes><Attribute Name="{name}"/></Attributes>\n' if name else ""
        texts.append(
            f'<Annotation Id="{layer}" Name="">\n{title}<Regions>\n{chr(10).join(regions)}\n'
            "</Regions>\n</Annotation>\n"
        )
    return f'<Annotations MicronsPerPixel="{mpp:.6f}">\n{"".join(texts)}</Annotations>'
