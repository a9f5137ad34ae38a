"""MoNuSAC 2020: nuclei of four organs, outlined and typed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core import notes
from datamodules.core.records import Boxes, Mask, Record, Targets, google_drive_zips
from datamodules.formats.annotations import fill_polygon, nucleus_tasks
from datamodules.formats.aperio import Outline, boxes_of, outlines_xml, read_layers, resolution
from datamodules.formats.cells import shown
from datamodules.formats.images import image_size, write_image
from datamodules.formats.layout import image_record, list_files, paired, relative, subfolders
from datamodules.formats.text_files import label
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import append_rows, slides

CLASSES = ("Epithelial", "Lymphocyte", "Neutrophil", "Macrophage")
_UNSURE = "Ambiguous"  # in the test: no label
_TRAIN = "MoNuSAC_images_and_annotations"
_TEST = "MoNuSAC Testing Data and Annotations"
_CLASS_OF_TYPE = np.array([0, 1, 4, 2, 0])  # of synthetic nuclei; 4 is left out
_PARTS = ("train", "test")
_IGNORED = 255
_ARCHIVES = (  # not published: the checksums that torch_em uses for these files
    (
        *("MoNuSAC_images_and_annotations", "1lxMZaAPSpEHLSxGA9KKMt_r-4S8dwLhq"),
        "5b7cbeb34817a8f880d3fddc28391e48d3329a91bf3adcbd131ea149a725cd92",
    ),
    (
        *("MoNuSAC Testing Data and Annotations", "1G54vsOdxWY1hG7dzmkeK3r0xz9s-heyQ"),
        "bcbc38f6bf8b149230c90c29f3428cc7b2b76f8acd7766ce9fc908fc896c2674",
    ),
)
_WHOLE = 1.0  # share of the field that one outline may take: some hold little more than it


class MoNuSAC(DatasetReader):
    """MoNuSAC 2020: 209 training and 85 test images of lung, prostate, kidney and breast.

    Layout:

        MoNuSAC_images_and_annotations/<patient>/<image>.{svs,tif,xml}          training
        MoNuSAC Testing Data and Annotations/<patient>/<image>.{svs,tif,xml}    a separate download

    The XML is that of Aperio ImageScope: an Annotation for each class, named by its first
    Attribute, with a Region for each nucleus. The .tif is read; where there is none, the .svs.

    Split: as published. The patient is the first 12 characters of <image>.
    Quirks: images measure from 81x113 to 1422x2162 px. Nuclei of the test whose class is Ambiguous
    carry no label: their pixels are ignored and they have no box; so do those of names that are no
    class, which are counted. Connective nuclei are not outlined.
    Shares slides of TCGA with MoNuSeg, PanNuke and others.
    """

    # [V] Folders, files, names of attributes and missing .tif files: constantinpape/torch-em,
    # monusac.py, which lists patients by organ, and kaiko-ai/eva, monusac.py; Ambiguous and other
    # names: programs that scanned all XML files. [K] MicronsPerPixel in their head.
    title = "MoNuSAC 2020 nuclei segmentation and classification"
    organs = ("lung", "prostate", "kidney", "breast")
    licence = "CC BY-NC-SA 4.0"
    commercial = False
    citation = (
        "Verma et al.: MoNuSAC2020: A multi-organ nuclei segmentation and classification "
        "challenge. IEEE TMI 40 (2021). doi:10.1109/TMI.2021.3085712"
    )
    homepage = "https://monusac-2020.grand-challenge.org"
    sources = ("TCGA",)
    archives = google_drive_zips(_ARCHIVES)
    obtain = (
        f"get training and test data from {homepage}/Data/ (links to Google Drive, which refuses "
        "programs when a file is in demand)"
    )
    images = 294
    extent = (600, 600)
    disk_gb = 1
    mpp = 0.25
    tasks = nucleus_tasks(CLASSES)
    layout = ("MoNuSAC*/*/*.xml",)
    split_overlap = (
        "the challenge has images of patients TCGA-A2-A0ES and TCGA-MP-A4T7 in both of its parts"
    )
    published_splits = _PARTS

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Images of several sizes, one as .svs alone; a patient lies in both parts."""
        organs = ("lung", "prostate", "kidney", "breast")
        for index, _, slide in slides(rng, images // 2, organs, cls.mpp, each=1, least=6):
            drawn = slide.field(*((512, 600), (120, 160), (560, 520))[index % 3], malignancy=0.3)
            test = index % 3 == 2
            case = f"TCGA-{'ABC'[index % 3]}{index % 10}-{1000 + index}"
            name = f"{'TCGA-A2-A0ES' if index in (0, 2) else case}-01Z-00-DX1"
            folder = root / (_TEST if test else _TRAIN) / name
            write_image(folder / f"{name}_1.tif", drawn.image)
            if index == 5:
                (folder / f"{name}_1.tif").rename(folder / f"{name}_1.svs")
            kinds = _CLASS_OF_TYPE[drawn.nucleus_types]
            kinds[np.flatnonzero(kinds == 1)[::4]] = 3
            names = (*CLASSES, *((_UNSURE,) if test else ()))
            layers = {
                kind: np.flatnonzero(kinds == number) + 1 for number, kind in enumerate(names)
            }
            append_rows(folder / f"{name}_1.xml", [outlines_xml(drawn.nuclei, slide.mpp, layers)])

    def records(self, root: Path) -> Iterator[Record]:
        """Training images, then test images, patient by patient."""
        tops = [folder for folder in subfolders(root) if folder.name.startswith("MoNuSAC")]
        for top in sorted(tops, key=_is_test):
            for folder in subfolders(top):
                images = {path.stem: path for path in list_files(folder, {".svs"})}
                images |= {path.stem: path for path in list_files(folder, {".tif"})}
                files = images.values(), list_files(folder, {".xml"})
                expected = f"{relative(root, folder)}/{{}}.xml"
                for path, xml in paired(root, *files, expected, self.options.allow_missing):
                    targets: Targets = {
                        "nuclei": partial(type_mask, root, xml, path),
                        "nuclei_detection": partial(type_boxes, root, xml, path),
                    }
                    split, mpp = _PARTS[_is_test(top)], resolution(root, xml, self.mpp)
                    yield image_record(root, path, targets, split, path.stem[:12], mpp)


def _is_test(folder: Path) -> bool:
    return "test" in folder.name.casefold()


def type_mask(root: Path, xml: Path, image: Path) -> Mask:
    """Class of the nucleus at each pixel, 0 is background, 255 where it cannot be told."""
    mask = np.zeros(image_size(image), np.uint8)
    for outline, kind in _outlines(root, xml, mask.shape):
        fill_polygon(mask, outline.points, 0 if outline.hole else kind)
    return mask


def type_boxes(root: Path, xml: Path, image: Path) -> Boxes:
    """The box around each nucleus with its class; those without class are left out."""
    size = image_size(image)
    with notes.collecting():  # what is odd is noted when the mask is filled
        found = _outlines(root, xml, size)
    return boxes_of([(outline, kind - 1) for outline, kind in found if kind != _IGNORED], size)


def _outlines(root: Path, xml: Path, size: tuple[int, ...]) -> list[tuple[Outline, int]]:
    """Outlines with their value in the mask: those without class first, holes last."""
    found = []
    for name, outlines in read_layers(root, xml, (size[0], size[1]), _WHOLE):
        if name not in (*CLASSES, _UNSURE):
            for _ in outlines:
                notes.warning(label(root, xml), f"nucleus of the unknown class '{shown(name)}'")
        kind = CLASSES.index(name) + 1 if name in CLASSES else _IGNORED
        found += [(outline, kind) for outline in outlines]
    return sorted(found, key=lambda one: (one[0].hole, one[1] != _IGNORED))
