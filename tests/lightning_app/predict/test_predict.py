"""What trained heads find lies where it is on the slide, in files that others read."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

from datamodules.core.errors import DiskError
from datamodules.formats.images import image_size, read_image, read_mask, write_image
from lightning_app.cli import main
from lightning_app.predict.run import Settings, predict_images, predict_slide
from lightning_app.publish.image_sources import ImageFolder, StorePatches
from models.module import MultiTaskModule
from models.network.detection_grid import Detections
from models.network.heads import Features
from models.tasks import TaskSpec
from tests.support.slide_files import write_slide
from tests.support.small_disks import Disk
from tests.support.small_stores import small_store
from tests.support.synthetic_batches import SIZE, SPECS, optim, tiny_model

SEGMENTS, DETECTS = SPECS[1], SPECS[2]


def tissue(scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pink tissue in glass with round nuclei, and their centres; larger pixels by `scale`."""
    rng = np.random.default_rng(0)
    image = np.full((700 * scale, 1000 * scale, 3), 244, np.uint8)
    image[100 * scale : 600 * scale, 150 * scale : 850 * scale] = (225, 165, 195)
    grid = np.stack(np.meshgrid(np.arange(170, 830, 25), np.arange(120, 580, 25)), -1)
    centres = (grid.reshape(-1, 2) + rng.integers(-4, 5, (grid.size // 2, 2))) * scale
    for x, y in centres.tolist():
        cv2.circle(image, (x, y), 4 * scale, (110, 70, 150), -1)
    return image, centres


def as_slide(path: Path, image: np.ndarray, mpp: float) -> Path:
    options = {"photometric": "rgb", "tile": (256, 256), "metadata": None, "compression": "zlib"}
    tifffile.imwrite(path, image, resolution=(1e4 / mpp,) * 2, resolutionunit=3, **options)
    return path


class ByColour:
    """Tasks with known answers: nuclei are what is dark in green."""

    size, specs = SIZE, SPECS

    def __init__(self, path: Path) -> None:
        self.path = path

    def predict(self, images: torch.Tensor, specs: Sequence[TaskSpec]) -> dict:
        dark = images[..., 1].numpy() < 118
        share = torch.from_numpy(dark.mean(axis=(1, 2))).float()
        found = {
            "organ/class": torch.stack([1 - share, share], 1),
            "grade/score": share,
            "traits/labels": torch.stack([share] * 3, 1),
            "nuclei/mask": torch.from_numpy(dark).long(),
            "nuclei/box": self._boxes(dark),
        }
        return {spec.key: found[spec.key] for spec in specs}

    @staticmethod
    def _boxes(dark: np.ndarray) -> Detections:
        boxes, owner = [], []
        for number, mask in enumerate(dark):
            _, _, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
            for x, y, width, height in facts[1:, :4].tolist():
                boxes.append([x, y, x + width, y + height])
                owner.append(number)
        count = len(boxes)
        return Detections(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.full((count,), 0.9),
            torch.zeros(count, dtype=torch.int64),
            torch.tensor(owner, dtype=torch.int64),
        )


def objects(path: Path) -> list:
    shapely = pytest.importorskip("shapely.geometry", reason="shapely is not installed")
    features = json.loads(path.read_text())["features"]
    for feature in features:
        facts = feature["properties"]
        assert facts["objectType"] == "detection"
        assert set(facts["classification"]) == {"name", "color"}
        assert facts["measurements"]["score"] == 0.9
    return [shapely.shape(feature["geometry"]) for feature in features]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("found")
    path = as_slide(folder / "a.tif", tissue()[0], 0.5)
    line = predict_slide(ByColour(path), {0.5: SPECS}, path, folder / "a", Settings(readers=0))
    assert "nuclei-box (" in line
    return folder / "a"


def test_a_map_of_classes_is_seamless_and_in_register(found):
    image, _ = tissue()
    with tifffile.TiffFile(found / "nuclei-mask.tif") as file:
        page = file.pages[0]
        labels = page.asarray()
        assert page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1] == 20_000
        shapes = [one.shape for one in file.pages]
        coarse = file.pages[1].asarray()
        assert page.colormap is not None and file.pages[1].subfiletype == 1
    assert labels.shape == image.shape[:2] and shapes[:3] == [(700, 1000), (350, 500), (175, 250)]
    seen = labels != 255
    assert (labels[seen] == (image[..., 1] < 118)[seen]).all()
    assert seen[100:600, 150:850].all() and not seen[:40].any()  # all tissue, no glass far from it
    assert (coarse == labels[1::2, 1::2]).mean() > 0.999


@pytest.mark.parametrize("scale", [1, 2])
def test_every_object_is_found_once_at_its_place(tmp_path, scale):
    image, centres = tissue(scale)
    path = as_slide(tmp_path / "a.tif", image, 0.5 / scale)
    predict_slide(ByColour(path), {0.5: [DETECTS]}, path, tmp_path / "a", Settings(readers=0))
    shapes = objects(tmp_path / "a/nuclei-box.geojson")
    assert len(shapes) == len(centres)
    middles = np.array([(one.centroid.x, one.centroid.y) for one in shapes])
    nearest = np.abs(middles[:, None] - (centres + 0.5)[None]).max(-1).min(1)
    assert nearest.max() <= 1.5 * scale
    assert {one.is_valid for one in shapes} == {True}


def test_classes_and_numbers_of_tiles_are_a_table_and_a_heat_map(found):
    image, _ = tissue()
    rows = list(csv.DictReader((found / "organ-class.csv").open()))
    assert list(rows[0]) == ["x", "y", "side", "predicted", "benign", "tumour"]
    for row in rows[:: len(rows) // 20]:
        x, y, side = int(row["x"]), int(row["y"]), int(row["side"])
        share = (image[y : y + side, x : x + side, 1] < 118).mean()
        assert float(row["tumour"]) == pytest.approx(share, abs=1e-4)
        assert row["predicted"] == "benign"
    assert (found / "grade-score.csv").read_text().startswith("x,y,side,score\n")
    for name in ("organ-class", "grade-score", "traits-labels"):
        assert min(image_size(found / f"{name}.png")) > 200
    assert image_size(found / "tiles-0.5.png") == (700, 1000)


def test_images_get_masks_objects_and_a_table_at_their_own_size(tmp_path):
    image, centres = tissue()
    inside = image[100:400, 150:640]
    for name in ("p/a", "b"):
        write_image(tmp_path / f"images/{name}.png", inside)
    tasks = ByColour(tmp_path)
    source = ImageFolder(tmp_path / "images", SIZE)
    settings = Settings(slide_mpp=0.5)
    predict_images(tasks, SPECS, False, source, tmp_path / "out", settings)
    mask = read_mask(tmp_path / "out/nuclei-mask/p/a.png.png")
    assert (mask == (inside[..., 1] < 118)).all()
    whole = ((centres >= (156, 106)) & (centres < (634, 394))).all(1).sum()
    count = len(objects(tmp_path / "out/nuclei-box/b.png.geojson"))
    assert whole <= count <= whole + 40  # those at the edge are cut, or one with their mirror image
    rows = list(csv.DictReader((tmp_path / "out/organ-class.csv").open()))
    assert [row["paths"] for row in rows] == ["b.png", "p/a.png"]


def test_a_store_gets_a_row_and_a_mask_for_each_patch(tmp_path):
    small_store(tmp_path / "s.h5", 5, SIZE)
    source = StorePatches(tmp_path / "s.h5", SIZE)
    specs = [SPECS[0], SEGMENTS]
    predict_images(ByColour(tmp_path), specs, False, source, tmp_path / "out", Settings())
    rows = list(csv.DictReader((tmp_path / "out/organ-class.csv").open()))
    assert [(row["paths"], row["x"], row["y"]) for row in rows[:2]] == [
        *(("images/0.png", "0", "0"), ("images/1.png", "1", "2"))
    ]
    image = source.store.images([3])[0]
    mask = read_mask(tmp_path / "out/nuclei-mask/000003.png")
    assert (mask == (image[..., 1] < 118)).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    module = MultiTaskModule([*SPECS, TaskSpec("old", SPECS[0].task)], tiny_model(), optim(), SIZE)
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    saved = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save({**saved, "global_step": 1}, folder / "checkpoints/step0000001.ckpt")
    return folder


def test_all_heads_on_the_same_images_predict_what_training_would(run):
    from models.inference.trained_tasks import load_tasks

    tasks = load_tasks(run)
    images = torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8)
    network = tasks.module.model
    encoded = network.encoder(tasks.module.prepare_images(images))
    dense = network.decoder(network.neck(encoded.pyramid))
    features = Features(encoded.embedding, dense, size=(SIZE, SIZE))
    got = tasks.predict(images, tasks.specs)
    assert set(got) == {spec.key for spec in tasks.specs}
    for spec in (SPECS[0], SEGMENTS):
        head = network.head(spec)
        torch.testing.assert_close(got[spec.key], head.predict(head(features)))


def test_predict_takes_a_damaged_checkpoint_for_what_it_is(run, tmp_path, caplog):
    from models.inference.trained_tasks import load_tasks

    (tmp_path / "checkpoints").mkdir()
    good = (run / "checkpoints/step0000001.ckpt").read_bytes()
    (tmp_path / "checkpoints/step0000001.ckpt").write_bytes(good)
    (tmp_path / "checkpoints/step0000002.ckpt").write_bytes(good[: len(good) // 2])
    assert load_tasks(tmp_path).path.name == "step0000001.ckpt"
    assert "step0000002.ckpt: cannot be read" in caplog.text


def command(run: Path, place: Path, out: Path, *options: str) -> int:
    return main(["predict", str(run), str(place), "--out", str(out), "--readers", "0", *options])


def test_a_folder_of_slides_gives_a_folder_each_and_is_not_done_twice(run, tmp_path, capsys):
    slides = tmp_path / "slides"
    slides.mkdir()
    for name in ("a.tif", "b.tif"):
        write_slide(slides / name, 4, 4, 2.0)
    write_slide(slides / "c.tif", 4, 4, 2.0, blank=True)
    for name in ("a.tif", "b.tif", "c.tif"):
        as_slide(slides / name, tissue()[0] if name < "c" else np.full_like(tissue()[0], 244), 0.5)
    chosen = "--task", "organ/class", "--task", "nuclei/mask"
    write_slide(slides / "d.tif", 4, 4)  # a pyramid
    (slides / "d.tif").rename(slides / "0.svs")
    assert command(run, slides, tmp_path / "out", *chosen) == 2
    told = capsys.readouterr()
    assert "error: 1 of 4 slides failed: " in told.err and "c.tif: no tile with tissue" in told.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0", "a", "b"]
    assert {path.name for path in (tmp_path / "out/a").iterdir()} == {
        *("organ-class.csv", "organ-class.png", "nuclei-mask.tif"),
        *("tiles-0.5.png", "prediction.json"),
    }
    (slides / "c.tif").unlink()
    assert command(run, slides, tmp_path / "out", *chosen) == 0
    assert capsys.readouterr().out.count("(exists)") == 3
    assert command(run, slides, tmp_path / "out", "--task", "grade") == 2
    assert "exists, with another content" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "lung/nodule"), "has no such task; it has organ/class, nuclei/mask"),
        (("--task", "old"), "was trained at an unknown µm/px; say with --mpp"),
        (("--score", "2"), None),
    ],
)
def test_predict_ends_with_one_line_and_no_file(run, tmp_path, capsys, options, words):
    path = as_slide(tmp_path / "a.tif", tissue()[0], 0.5)
    if words is None:
        with pytest.raises(SystemExit):
            command(run, path, tmp_path / "out", *options)
    else:
        assert command(run, path, tmp_path / "out", *options) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1 and words in told[0]
    assert not (tmp_path / "out").exists()


def _zeros(path: Path) -> None:
    with tifffile.TiffFile(path) as file:
        places = dict(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    with path.open("r+b") as raw:
        for offset, count in list(places.items())[len(places) // 2 :]:
            raw.seek(offset)
            raw.write(b"\0" * count)


@pytest.mark.parametrize("damage", [_zeros, lambda path: os.truncate(path, 3000)])
def test_a_damaged_slide_ends_predict_with_one_line_and_no_folder(run, tmp_path, capsys, damage):
    path = write_slide(tmp_path / "a.tif", 4, 4)
    damage(path)
    assert command(run, path, tmp_path / "out", "--task", "nuclei", "--mpp", "0.5") == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "a.tif: not a readable slide" in told[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif"]


def test_a_disk_that_fills_up_ends_predict_and_leaves_nothing(tmp_path):
    disk = Disk(tmp_path / "disk", megabytes=80)
    path = as_slide(tmp_path / "a.tif", tissue()[0], 0.5)

    class Filling(ByColour):
        def predict(self, images: torch.Tensor, specs: Sequence[TaskSpec]) -> dict:
            disk.fill()
            return super().predict(images, specs)

    out = disk.place / "a"
    with pytest.raises(OSError, match="No space left on device") as raised:
        predict_slide(Filling(path), {0.5: [SEGMENTS]}, path, out, Settings(readers=0))
    assert raised.value.filename == str(out) and disk.files() == []
    assert not out.exists()
    with pytest.raises(DiskError, match="a: needs about 50"):
        predict_slide(ByColour(path), {0.5: [SEGMENTS]}, path, out, Settings(readers=0))
    disk.unmount()


def test_an_exported_encoder_has_no_heads(tmp_path, capsys):
    path = as_slide(tmp_path / "a.tif", tissue()[0], 0.5)
    (tmp_path / "run").mkdir()
    assert command(tmp_path / "run", path, tmp_path / "out") == 2
    assert "heads are kept in its checkpoints/ only" in capsys.readouterr().err


def test_images_without_resolution_are_asked_for_it(run, tmp_path, capsys):
    write_image(tmp_path / "images/a.png", tissue()[0])
    images = tmp_path / "images"
    assert command(run, images, tmp_path / "out", "--task", "nuclei/mask") == 2
    assert "a.png: does not state its µm/px; add --slide-mpp" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert command(run, images, tmp_path / "out", "--task", "organ") == 0
    assert read_image(images / "a.png").shape == (700, 1000, 3)
