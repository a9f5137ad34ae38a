"""LC25000: lung and colon cancer."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from datamodules.core import notes
from datamodules.core.records import Record, Task, TaskKind
from datamodules.formats.cells import spelling
from datamodules.formats.images import write_image
from datamodules.formats.layout import image_record, layout_error, named, nonempty_images, relative
from datamodules.formats.tables import has_table, read_table
from datamodules.reader import DatasetReader
from datamodules.store.tiling import View
from datamodules.synthetic.scene import append_rows, slides

PREFIXES = {
    "colon_aca": "colonca", "colon_n": "colonn",
    "lung_aca": "lungaca", "lung_n": "lungn", "lung_scc": "lungscc",
}  # fmt: skip
CLASSES = tuple(PREFIXES)
_COPIES = 4  # forged copies of one original; about 20 in the real dataset
_TOP = "lung_colon_image_set"
_CLUSTERS = "annotations/{name}/UNI/resize_only/final_clusters.csv"


class LC25000(DatasetReader):
    """LC25000: 5,000 JPEG images of each of 5 classes.

    aca is adenocarcinoma, scc squamous cell carcinoma, n benign tissue.

    Layout:

        lung_colon_image_set/
            colon_image_sets/{colon_aca/colonca<k>.jpeg, colon_n/colonn<k>.jpeg}
            lung_image_sets/{lung_aca/lungaca<k>.jpeg, lung_n/lungn<k>.jpeg,
                             lung_scc/lungscc<k>.jpeg}
        annotations/<class>/UNI/resize_only/final_clusters.csv     optional, see grouping

    Split: none is published.
    Grouping: there are no patient ids, and each class holds only 250 originals, each about 20
    times as rotated and flipped copies. The clusters of the LC25000-clean repository
    (github.com/GeorgeBatch/LC25000-clean, columns cluster_label and img_path) bring the copies
    together: they are the groups of a class whose CSV lies at the place above.
    WITHOUT IT EVERY IMAGE IS ITS OWN GROUP, COPIES OF ONE ORIGINAL FALL ON BOTH SIDES OF ANY
    SPLIT, AND VALIDATION SCORES MEAN NOTHING. Patients may leak even with it.
    """

    title = "LC25000 lung and colon histopathological images"
    organs = ("lung", "colon")
    licence = "not verified; see the publisher's page"
    citation = (
        "Borkowski et al.: Lung and Colon Cancer Histopathological Image Dataset (LC25000). "
        "arXiv 1912.12142 (2019)"
    )
    homepage = "https://github.com/tampapath/lung_colon_image_set"
    sources = ("LC25000",)
    access = "login"
    obtain = (
        "sign in at https://www.kaggle.com/datasets/andrewmvd/"
        "lung-and-colon-cancer-histopathological-images and get its archive, which holds "
        f"{_TOP}; then copy the folder annotations of https://github.com/GeorgeBatch/LC25000-clean "
        "beside it"
    )
    images = 25_000
    extent = (768, 768)
    disk_gb = 1.9
    view = View.WHOLE
    tasks = (Task("histology", TaskKind.CLASSIFICATION, CLASSES),)
    layout = (_TOP,)
    grouping = "cluster of copies"

    @classmethod
    def forge(cls, root: Path, rng: np.random.Generator, images: int) -> None:
        """Originals and their turned and mirrored copies, with the clusters that name them."""
        originals = max(2, round(images / len(CLASSES) / _COPIES))
        for name in CLASSES:
            organ, table = name.split("_")[0], root / _CLUSTERS.format(name=name)
            append_rows(table, ("cluster_label", "img_path"))
            style = "head-neck" if name == "lung_scc" else organ
            for cluster, _, slide in slides(rng, originals, [style], 0.4, each=1, least=2):
                grade = 0.0 if name.endswith("_n") else (0.5, 1.0)
                image = slide.field(768, malignancy=grade, epithelium=(0.4, 0.9)).image
                for copy in range(_COPIES):
                    file = f"{PREFIXES[name]}{copy * originals + cluster + 1}.jpeg"
                    turned = np.rot90(image if copy % 2 else image[:, ::-1], copy)
                    write_image(root / _TOP / f"{organ}_image_sets" / name / file, turned.copy())
                    append_rows(table, (cluster, f"./LC25000/{name}/{file}"))

    def records(self, root: Path) -> Iterator[Record]:
        """Class by class in index order, sorted by file name."""
        for label, (name, prefix) in enumerate(PREFIXES.items()):
            pattern, clusters = re.compile(prefix + r"\d+\.jpeg"), _clusters(root, name)
            organ = name.split("_")[0]
            folder = root / _TOP / f"{organ}_image_sets" / name
            if self.options.allow_missing and not folder.is_dir():
                notes.skipped(relative(root, folder), "class folder does not exist")
                continue
            for path in nonempty_images(root, folder):
                named(pattern, root, path, f"{prefix}<number>.jpeg")
                group = ""
                if clusters is not None:
                    if path.name not in clusters:
                        problem = f"not listed in {_CLUSTERS.format(name=name)}"
                        raise layout_error(root, path, problem)
                    group = f"{name}/{clusters[path.name]}"
                yield image_record(root, path, {"histology": label}, group=group)


def _clusters(root: Path, name: str) -> dict[str, str] | None:
    """Cluster by file name; None for a class without a file of clusters."""
    path = root / _CLUSTERS.format(name=name)
    if not has_table(root, path, "no table of clusters: each image is its own group"):
        return None
    clusters: dict[str, str] = {}
    for row in read_table(root, path, ("cluster_label", "img_path")):
        file = PurePosixPath(row["img_path"].replace("\\", "/")).name
        cluster = spelling(row["cluster_label"])
        if clusters.setdefault(file, cluster) != cluster:
            raise row.error("img_path", f"{file} lies in two clusters")
    return clusters
