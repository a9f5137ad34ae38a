"""Chaoyang: patches of the colon, with labels of three pathologists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datamodules.core import notes
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.cells import file_name
from datamodules.formats.images import write_image
from datamodules.formats.json_files import Node, read_json
from datamodules.formats.layout import folder_with, image_record, note_unlisted
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import slides

CLASSES = ("normal", "serrated", "adenocarcinoma", "adenoma")
_PARTS = ("train", "test")
_SLIDE = re.compile(r"(.+)-IMG\d+x\d+-\d+")
_GRADES = ((0.0, 0.05), (0.15, 0.3), (0.75, 1.0), (0.4, 0.6))  # of synthetic tissue by class


class Chaoyang(DatasetReader):
    """Chaoyang: 6,160 patches of colon slides of the Chaoyang hospital.

    Three pathologists labelled each patch. In the test all three agree; in training they do not
    always, and the label is that of one of them where they differ: its labels are noisy.

    Layout:

        train.json, test.json      a list of {"name": "train/<slide>-IMG<x>x<y>-<label>.JPG",
                                   "label": 0 to 3}
        train/*.JPG, test/*.JPG    512x512 px

    Split: as published, 4,021 and 2,139.
    Grouping: the slide, which is the name up to "-IMG".
    Quirk: the number at the end of a name is a label too, which may differ: it is not read.
    """

    # [V] Names, keys and order of the classes: bupt-ai-cz/HSA-NRL, data/chaoyang.py and
    # chaoyang/train_label.json; the number of each class: the README of the archive. [K] That
    # slides of training and test differ, how labels of training were chosen; µm/px not published.
    title = "Chaoyang colon patches"
    organs = ("colon",)
    licence = "non-commercial research with citation, no redistribution"
    commercial = False
    citation = (
        "Zhu et al.: Hard sample aware noise robust learning for histopathology image "
        "classification. IEEE TMI 41 (2022). doi:10.1109/TMI.2021.3125459"
    )
    homepage = "https://bupt-ai-cz.github.io/HSA-NRL"
    sources = ("Chaoyang hospital colon",)
    obtain = f"follow the links of {homepage} to chaoyang-data.zip and unpack it there"
    images = 6_160
    extent = (512, 512)
    disk_gb = 0.6
    view = View.WHOLE
    grouping = "slide"
    tasks = (Task("tissue", TaskKind.CLASSIFICATION, CLASSES),)
    layout = ("**/train.json", "**/test.json")
    published_splits = _PARTS

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Patches of 320x320 px of slides with all classes; every third slide is for the test."""
        lists: dict[str, list[dict[str, object]]] = {part: [] for part in _PARTS}
        for index, number, slide in slides(rng, max(12, images), mpp=0.5, each=4, least=3):
            label, part = number % len(CLASSES), _PARTS[index % 3 == 2]
            drawn = slide.field(320, malignancy=_GRADES[label], epithelium=(0.3, 0.6))
            name = f"{part}/{535940 + index}-IMG{number:03d}x{index:03d}-{label}.JPG"
            write_image(root / name, drawn.image)
            lists[part].append({"name": name, "label": label})
        for part, entries in lists.items():
            (root / f"{part}.json").write_text(json.dumps(entries))

    def records(self, root: Path) -> Iterator[Record]:
        """Training, then test, each in its own order."""
        top = folder_with(root, "train.json")
        for part in _PARTS:
            listed = set()
            for node in read_json(root, top / f"{part}.json").items():
                path = top / _name(node["name"])
                listed.add(path.name)
                match = _SLIDE.fullmatch(path.stem)
                if match is None:
                    notes.warning(path.name, "name without a slide; its own group")
                label = node["label"].whole(0, len(CLASSES) - 1)
                group = match[1] if match else ""
                yield image_record(root, path, {"tissue": label}, part, group)
            note_unlisted(root, top / part, listed, f"{part}.json")


def _name(node: Node) -> str:
    try:
        return file_name(node.text())
    except ValueError as error:
        raise node.error(str(error)) from error
