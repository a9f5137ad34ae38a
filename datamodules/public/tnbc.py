"""TNBC: nuclei of triple-negative breast cancer (Naylor)."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.records import Archive, Record, Task, TaskKind
from datamodules.formats.images import read_foreground, write_image
from datamodules.formats.layout import (
    folder_with,
    image_record,
    named,
    nonempty_images,
    paired,
    subfolders,
)
from datamodules.reader import DatasetReader
from datamodules.synthetic.scene import slides

_NAME = re.compile(r"\d+_\d+\.png")


class TNBC(DatasetReader):
    """TNBC (Naylor et al.): fields of triple-negative breast cancer of 11 patients at 40x.

    Layout:

        Slide_<XX>/<XX>_<N>.png     the images of patient XX
        GT_<XX>/<XX>_<N>.png        nuclei, any value above 0; touching ones are kept apart by
                                    one pixel of background

    Split: none is published.
    Quirk: later versions of the archive add brain tissue as further slides: they are read too.
    """

    title = "TNBC nuclei segmentation"
    organs = ("breast",)
    licence = "CC BY 4.0, not verified; see the publisher's page"
    citation = (
        "Naylor et al.: Segmentation of nuclei in histopathology images by deep regression of the "
        "distance map. IEEE Transactions on Medical Imaging 38(2) (2019). "
        "doi:10.1109/TMI.2018.2865709"
    )
    homepage = "https://doi.org/10.5281/zenodo.2579118"
    sources = ("Institut Curie",)
    archives = (
        Archive(
            "https://zenodo.org/records/2579118/files/TNBC_NucleiSegmentation.zip",
            "md5:1605712a752b201b57eacc8f866adb4f",
            25_232_361,
        ),
    )
    images = 50
    extent = (512, 512)
    disk_gb = 0.03
    mpp = 0.25
    tasks = (Task("nuclei", TaskKind.SEGMENTATION, ("background", "nucleus")),)
    layout = ("**/Slide_*/*.png", "**/GT_*/*.png")

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Fields of 512x512 px of patients, about four each."""
        for patient, number, slide in slides(rng, images, ["breast"], cls.mpp, each=4, least=3):
            drawn = slide.field(512, malignancy=(0.4, 1.0))
            name = f"{patient + 1:02d}_{number + 1}.png"
            write_image(root / f"Slide_{patient + 1:02d}" / name, drawn.image)
            nuclei = (drawn.nuclei > 0).astype(np.uint8) * 255
            write_image(root / f"GT_{patient + 1:02d}" / name, nuclei)

    def records(self, root: Path) -> Iterator[Record]:
        """Patient by patient, sorted by file name."""
        top = folder_with(root, "Slide_01")
        folders = {path.name for path in subfolders(top)}
        slides = {name.split("_", 1)[1] for name in folders if name.startswith(("Slide_", "GT_"))}
        for slide in sorted(slides):
            for name in (f"Slide_{slide}", f"GT_{slide}"):
                if name not in folders:
                    raise DatasetNotFoundError(f"{top}: no folder {name}, its partner is there")
            images, masks = (
                nonempty_images(root, top / f"{kind}_{slide}") for kind in ("Slide", "GT")
            )
            place, missing = f"GT_{slide}/{{}}.png", self.options.allow_missing
            for path, mask in paired(root, images, masks, place, missing):
                named(_NAME, root, path, f"{slide}_<N>.png")
                # [K] Whether masks are grey, palette or RGB is not verified: not black counts.
                targets = {"nuclei": partial(read_foreground, mask)}
                yield image_record(root, path, targets, group=f"patient {slide}")
