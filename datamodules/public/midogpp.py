"""MIDOG++: mitotic figures of seven tumours."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.core import notes
from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.records import Boxes, Record
from datamodules.formats.annotations import MITOSIS, RareObjectOptions
from datamodules.formats.coco import CocoImage, read_coco
from datamodules.formats.images import write_image
from datamodules.formats.layout import image_record, layout_error, note_unlisted
from datamodules.formats.tables import read_table
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import append_rows, slides

UNLABELLED = range(151, 201)  # image ids of the GT450 scanner, published without labels
# Class of each category; the last is that of older files.
_CATEGORIES = {"mitotic figure": 0, "not mitotic figure": 1, "Hard negative": 1}
_REPOSITORY = "https://github.com/DeepMicroscopy/MIDOGpp"

_SIDE = 800  # of a forged region in pixels
_TUMOURS = (
    ("human breast cancer", "breast"), ("canine soft tissue sarcoma", "soft-tissue"),
    ("canine lymphosarcoma", "lymph-node"), ("human neuroendocrine tumor", "pancreas"),
    ("canine cutaneous mast cell tumor", "skin"), ("human melanoma", "skin"),
    ("canine lung cancer", "lung"),
)  # fmt: skip


class MIDOGpp(DatasetReader):
    """MIDOG++: mitosis detection in seven human and canine tumours.

    Labelled regions of about 2 mm2 (up to 7215x5412 px), one per case; 11,937 mitotic figures and
    14,349 look-alikes, each a box of 50x50 px around its centre.

    Layout (the two tables may also lie directly in the folder, as in their repository):

        images/001.tiff ... 553.tiff
        databases/MIDOG++.json              info, licenses, images, categories, annotations
        databases/datasets_xvalidation.csv  Slide;Dataset;Tumor;Scanner;Origin;Species

    Split: train (392) and test (111) as in the CSV. One image is one case.
    Quirks: bbox is [x1, y1, x2, y2], not COCO's width and height. Images 151 to 200 are
    unlabelled and left out. Boxes at the border reach out of the image and are clipped.
    Look-alikes ("not mitotic figure" in the JSON) are a class of their own: they were labelled by
    the same experts, and telling the two apart is the skill to learn. Scores count mitotic
    figures only, as in the field (Task.positive).
    Objects are rare: at 0.5 µm/px and 256 px, 17,847 of 72,046 tiles hold one. Training keeps
    these and the share `empty_share` of the others, spread evenly; test keeps every tile.
    """

    title = "MIDOG++ mitotic figures"
    organs = ("breast", "soft tissue", "lymph node", "pancreas", "skin", "lung")
    licence = "CC0"
    commercial = True
    citation = (
        "Aubreville et al.: A comprehensive multi-domain dataset for mitotic figure detection. "
        "Scientific Data 10:484 (2023). doi:10.1038/s41597-023-02327-4"
    )
    homepage = "https://doi.org/10.6084/m9.figshare.c.6615571.v1"
    sources = ("MIDOG",)
    access = "by hand"
    download_gb = 65
    obtain = (
        f"fetch the images with Setup.ipynb of {_REPOSITORY}, or from {homepage}, into images/, "
        "and put MIDOG++.json and datasets_xvalidation.csv of that repository into databases/ there"
    )
    images = 503
    extent = (5_900, 5_900)
    disk_gb = 65
    mpp = 0.25
    tasks = (MITOSIS,)
    # The tables may lie beside the images or in databases/; `records` reports a missing one.
    layout = ("images/*.tiff", "**/MIDOG++.json", "**/datasets_xvalidation.csv")
    grouping = "case"
    options_type = RareObjectOptions
    published_splits = ("train", "test")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Small regions with both tables; a region counts as four images, being cut into tiles."""
        folder, organs = root / "databases", [organ for _, organ in _TUMOURS]
        entries = [_entry(151, _TUMOURS[0][0])]  # listed, but neither labelled nor there
        rows = ["Slide;Dataset;Tumor;Scanner;Origin;Species"]
        notes: list[dict[str, Any]] = []
        for index, _, slide in slides(rng, images // 4, organs, cls.mpp, each=1, least=6):
            number, tumour = index + 1 + 50 * (index >= 150), _TUMOURS[index % len(_TUMOURS)][0]
            first, second = rng.integers(1, (6, 7)).tolist()
            drawn = slide.field(_SIDE, malignancy=0.8, mitoses=first, lookalikes=second)
            write_image(root / "images" / f"{number:03d}.tiff", drawn.image)
            entries.append(_entry(number, tumour))
            points = np.concatenate([drawn.mitoses, drawn.lookalikes]).round().astype(int)
            for place, (x, y) in enumerate(points.tolist()):
                box, kind = [x - 25, y - 25, x + 25, y + 25], 1 + (place >= first)
                note = {"image_id": number, "bbox": box, "category_id": kind}
                notes.append({"id": len(notes) + 1, **note})
            part, species = "train" if index % 5 < 4 else "test", tumour.split()[0]
            rows.append(f"{number};{part};{tumour};Hamamatsu XR;UMC Utrecht;{species}")
        figure = MITOSIS.classes[0]
        names = [{"id": 1, "name": figure}, {"id": 2, "name": f"not {figure}"}]
        database = {"images": entries, "categories": names, "annotations": notes}
        append_rows(folder / "datasets_xvalidation.csv", *zip(rows))
        (folder / "MIDOG++.json").write_text(json.dumps(database))

    def records(self, root: Path) -> Iterator[Record]:
        """Labelled images in order of their id."""
        database = read_coco(root, _table(root, "MIDOG++.json"), corners=True)
        table = _table(root, "datasets_xvalidation.csv")
        rows = read_table(root, table, ("Slide", "Dataset"), delimiter=";")
        splits: dict[int, str] = {}
        for row in rows:
            number = row.whole("Slide", 1)
            if number in splits:
                raise row.error("Slide", f"{number} is listed twice")
            splits[number] = row["Dataset"]
        for key, entry in database.images.items():
            if not isinstance(key, int) or entry.size is None:
                raise LayoutError(f"MIDOG++.json: image {key}, expected a number, width and height")
        for number, entry in sorted((int(key), entry) for key, entry in database.images.items()):
            if number in UNLABELLED:
                continue
            if number not in splits:
                raise layout_error(root, table, f"no row for Slide {number}")
            boxes = {"mitosis": _boxes(database.objects.get(number, []), entry)}
            path, group = root / "images" / entry.name, f"case {number:03d}"
            yield image_record(root, path, boxes, splits[number], group, size=entry.size)
        names = {entry.name for entry in database.images.values()}
        note_unlisted(root, root / "images", names, "MIDOG++.json")


def _table(root: Path, name: str) -> Path:
    for path in (root / "databases" / name, root / name):
        if path.is_file():
            return path
    raise DatasetNotFoundError(
        f"{root / 'databases' / name}: no such file; get it from databases/ of {_REPOSITORY}"
    )


def _boxes(objects: list[tuple[list[float], str]], entry: CocoImage) -> Boxes:
    """Boxes clipped to the image; one entirely outside stays and is refused when checked."""
    unknown = {name for _, name in objects} - set(_CATEGORIES)
    if unknown:
        known = ", ".join(_CATEGORIES)
        raise LayoutError(f"MIDOG++.json: category '{min(unknown)}', expected one of {known}")
    xyxy = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    centres, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, (entry.size or (0, 0))[::-1]
    for _ in range(int(((centres < 0) | (centres > size)).any(axis=1).sum())):
        notes.warning(entry.name, "point outside of its image; its box is clipped")
    edge = np.array([*size] * 2, np.float32)
    labels = [_CATEGORIES[name] for _, name in objects]
    return Boxes(xyxy.clip(0, edge), np.array(labels, np.int64))


def _entry(number: int, tumour: str) -> dict[str, Any]:
    """An item of the JSON's list of images."""
    name = f"{number:03d}.tiff"
    return {"id": number, "file_name": name, "width": _SIDE, "height": _SIDE, "tumor_type": tumour}
