"""COCO's JSON format of images with boxes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datamodules.core import notes
from datamodules.formats.cells import file_name, spelling
from datamodules.formats.json_files import Node, read_json

Id = int | str
_FAR = 1e6  # pixels; no image is as large


@dataclass(frozen=True)
class CocoImage:
    """An image that the file lists."""

    name: str  # of its file, see `cells.file_name`
    size: tuple[int, int] | None  # height and width; None where the file does not state them


@dataclass(frozen=True)
class Coco:
    """The content of a JSON file in COCO's format for objects.

    An object is its corners x1, y1, x2, y2 in pixels and the name of its category.
    """

    images: Mapping[Id, CocoImage]
    categories: tuple[str, ...]  # names, in order of their ids
    objects: Mapping[Id, list[tuple[list[float], str]]]  # by id of their image


def read_coco(root: Path, path: Path, corners: bool = False, allow_outside: bool = False) -> Coco:
    """Images, categories and annotations of a JSON file in COCO's format.

    A box without area is left out with a warning. With `corners`, `bbox` holds two corners
    instead of a corner, width and height; `allow_outside` accepts names that leave the folder.

    Refused is an id, an image's name or a category's name that occurs twice, and an annotation
    that belongs to nothing or has no box.
    """
    top = read_json(root, path)
    for key in ("images", "categories", "annotations"):
        if top.get(key) is None:
            raise top.error(f"not in COCO's format: no '{key}'")
    images: dict[Id, CocoImage] = {}
    names: set[str] = set()
    for node in top["images"].items():
        image = _image(node, allow_outside)
        _once(node, "id", images)
        if image.name in names:
            raise node.error(f"two images are the file {image.name}; were two files joined?")
        names.add(image.name)
        images[node["id"].identity()] = image
    categories = _categories(top["categories"])
    objects: dict[Id, list[tuple[list[float], str]]] = {}
    seen: set[Id] = set()
    for node in top["annotations"].items():
        if node.get("id") is not None:
            _once(node, "id", seen)
            seen.add(node["id"].identity())
        _add(node, images, categories, objects, corners)
    return Coco(images, tuple(categories[key] for key in sorted(categories, key=_order)), objects)


def _image(node: Node, allow_outside: bool) -> CocoImage:
    try:
        name = file_name(node["file_name"].text(), allow_outside)
    except ValueError as error:
        raise node.error(f"file_name {error}") from error
    sides = [node.get(key) for key in ("height", "width")]
    if None in sides:
        if sides != [None, None]:
            raise node.error("states only one of height and width")
        return CocoImage(name, None)
    height, width = (side.whole(1, _FAR) for side in sides if side is not None)
    return CocoImage(name, (height, width))


def _categories(top: Node) -> dict[Id, str]:
    categories: dict[Id, str] = {}
    plain: set[str] = set()
    for node in top.items():
        _once(node, "id", categories)
        name = node["name"].text()
        if spelling(name) in plain:
            raise node.error(f"two categories are named '{name}'; give each one name and one id")
        plain.add(spelling(name))
        categories[node["id"].identity()] = name
    return categories


def _add(
    node: Node,
    images: Mapping[Id, CocoImage],
    categories: Mapping[Id, str],
    objects: dict[Id, list[tuple[list[float], str]]],
    corners: bool,
) -> None:
    image, category = node["image_id"].identity(), node["category_id"].identity()
    if image not in images:
        raise node.error(f"belongs to image {image}, which is not listed")
    if category not in categories:
        raise node.error(f"has category_id {category}, which is not listed")
    crowd = node.get("iscrowd")
    if crowd is not None and crowd.value not in (0, 1):
        raise crowd.error("expected 0 or 1")
    if crowd is not None and crowd.value:
        raise node.error("is a region marked iscrowd, expected objects")
    numbers = [number.number(-_FAR, _FAR) for number in node["bbox"].items()]
    if len(numbers) != 4:
        raise node["bbox"].error(f"{len(numbers)} numbers, expected 4")
    x, y, a, b = numbers
    box = [x, y, a, b] if corners else [x, y, x + a, y + b]
    if box[2] < x or box[3] < y:
        expected = "x1, y1, x2, y2" if corners else "x, y, width, height"
        raise node["bbox"].error(f"{numbers} ends before it begins, expected {expected}")
    found = objects.setdefault(image, [])
    if box[2] == x or box[3] == y:
        notes.skipped(f"{node.file}: {node.path}", "box without area")
    else:
        if (box, categories[category]) in found[-50:]:
            notes.warning(f"{node.file}: {node.path}", "the same box twice")
        found.append((box, categories[category]))


def _once(node: Node, key: str, seen: Mapping[Id, object] | set[Id]) -> None:
    if node[key].identity() in seen:
        raise node.error(f"{key} {node[key].value} occurs twice; were two files joined?")


def _order(key: Id) -> tuple[bool, int, str]:
    """Order of ids: numbers by value, then texts."""
    return (True, 0, key) if isinstance(key, str) else (False, key, "")
