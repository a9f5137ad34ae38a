"""Pipes, sockets, devices and odd names: one line, no hang, no markup and no formula."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.core.errors import ConfigError
from datamodules.formats.images import write_image
from lightning_app.cli import main
from lightning_app.config import load_config
from lightning_app.run.probing import load_all
from models.inference.export import export_encoder
from models.network.encoder import Encoder
from tests.support.synthetic_batches import tiny_model


@pytest.fixture(autouse=True)
def end_a_hang() -> Iterator[None]:
    """Opening a pipe waits for a writer; the alarm interrupts that."""

    def late(*_: object) -> None:
        raise AssertionError("waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    export_encoder(Encoder(tiny_model(encoder="test_resnet"), 32), folder)
    return folder


def pipe(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{descriptor}/{path.name}")
    os.close(descriptor)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = [
    pytest.param(pipe, id="pipe"),
    pytest.param(
        socket_file, id="socket", marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc")
    ),
    pytest.param(device, id="device"),
]


def image(path: Path) -> None:
    write_image(path, np.full((32, 32, 3), 120, np.uint8))


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    lines = [text for text in capsys.readouterr().err.splitlines() if "Warning" not in text]
    assert lines and lines[-1].startswith("error: ") and "Traceback" not in "".join(lines), lines
    assert len([text for text in lines if text.startswith("error: ")]) == 1
    return lines[-1]


def recipe(folder: Path, reader: str) -> list[str]:
    entry = {"reader": reader, "folder": "own", "patch_size": 32}
    data = {"root": str(folder), "stores": str(folder / "stores"), "train": {"own": entry}}
    (folder / "r.yaml").write_text(json.dumps({"data": data}))
    return ["datasets", "prepare", "--workers", "1", "--recipe", str(folder / "r.yaml")]


READERS = ["class_folders", "csv_table", "coco_boxes", "image_masks", "glas", "pcam", "pannuke"]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_a_dataset_that_is_no_folder_is_one_line(tmp_path, capsys, make, reader):
    make(tmp_path / "own")
    assert "own: no folder" in refused(capsys, recipe(tmp_path, reader))


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("reader", "place"),
    [
        ("csv_table", "table.csv"),
        ("csv_table", "2.png"),
        ("coco_boxes", "annotations.json"),
        ("image_masks", "masks/1.png"),
        ("pcam", "camelyonpatch_level_2_split_train_x.h5"),
    ],
)
def test_a_table_image_or_array_that_is_no_file_is_one_line(tmp_path, capsys, make, reader, place):
    for name in ("1.png", "images/1.png", "masks/2.png"):
        image(tmp_path / "own" / name)
    if place == "2.png":
        (tmp_path / "own/table.csv").write_text("image,target\n1.png,a\n2.png,b\n")
    make(tmp_path / "own" / place)
    refused(capsys, recipe(tmp_path, reader))
    assert not list((tmp_path / "stores").glob("*.h5"))


@pytest.mark.parametrize("make", KINDS)
def test_encoders_stores_and_images_that_are_no_files_are_one_line(
    exported, tmp_path, capsys, make
):
    for folder in ("images", "run", "facts"):
        (tmp_path / folder).mkdir()
    for name in ("store.h5", "x.ckpt", "images/1.png", "run/encoder.safetensors", "facts/x"):
        make(tmp_path / name)
    make(tmp_path / "facts/encoder.json")
    (tmp_path / "run/encoder.json").write_text((exported / "encoder.json").read_text())
    out = ["--out", str(tmp_path / "f.h5")]
    for images in ("store.h5", "images", "x.ckpt"):
        refused(capsys, ["embed", str(exported), str(tmp_path / images), *out])
    for encoder in ("x.ckpt", "run", "facts"):
        refused(capsys, ["embed", str(tmp_path / encoder), str(tmp_path / "images"), *out])
    refused(capsys, ["export", str(tmp_path / "x.ckpt"), "--out", str(tmp_path / "e")])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("place", ["/proc", "/dev"])
@pytest.mark.parametrize("reader", ["class_folders", "csv_table", "image_masks", "idc"])
def test_system_folders_are_no_datasets(tmp_path, capsys, place, reader):
    arguments = recipe(tmp_path, reader)
    text = (tmp_path / "r.yaml").read_text().replace(f'"root": "{tmp_path}"', f'"root": "{place}"')
    (tmp_path / "r.yaml").write_text(text.replace('"own", "patch', '".", "patch'))
    refused(capsys, arguments)


NAMES = ["two\nlines", "tab\tbell\a", "\x1b[31mred", "[/bold]", "[link=x]y"]


@pytest.mark.parametrize("name", [name.replace("/", "") for name in NAMES])
def test_an_odd_file_name_stays_on_the_line_of_its_error(exported, tmp_path, capsys, name):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / f"{name}.png").write_bytes(b"no image")
    told = refused(capsys, ["embed", str(exported), str(folder), "--out", str(tmp_path / "f")])
    assert name.split("\n")[0].strip("\x1b\a\t")[:3] in told
    assert told.isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_folder_name_is_printed_as_it_is(exported, tmp_path, capsys, name):
    image(tmp_path / name / "1.png")
    out = tmp_path / f"{name}.h5"
    assert main(["embed", str(exported), str(tmp_path / name), "--out", str(out)]) == 0
    assert "1 embeddings of" in capsys.readouterr().out
    assert out.is_file()


def test_an_odd_name_in_a_system_error_stays_on_one_line(exported, tmp_path, capsys):
    image(tmp_path / "images/1.png")
    (tmp_path / "two\nlines").write_text("a file")
    out = tmp_path / "two\nlines" / "f.h5"
    told = refused(capsys, ["embed", str(exported), str(tmp_path / "images"), "--out", str(out)])
    assert "two\\nlines" in told


@pytest.mark.parametrize("name", ["=1+1", "@a", "-a", "a\nb", "a=1"])
def test_encoders_whose_names_are_formulas_stay_out_of_tables(exported, tmp_path, name):
    (tmp_path / name).mkdir()
    for part in ("encoder.json", "encoder.safetensors"):
        (tmp_path / name / part).write_bytes((exported / part).read_bytes())
    config = load_config(None, ["probe.baselines=[]", "data.image_size=32"])
    if name == "a=1":
        assert load_all([str(tmp_path / name)], config)[0][0].name == name
        return
    with pytest.raises(ConfigError, match="begin with a letter or digit") as caught:
        load_all([str(tmp_path / name)], config)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("option", ["--batch-size", "--size", "--workers", "--images", "--seed"])
@pytest.mark.parametrize("value", ["-1", "9" * 5000, "1e3", "nan", ""])
def test_numbers_of_the_command_line_have_ranges(capsys, option, value):
    verb = ["embed", "e", "i", "--out", "o"] if "size" in option else ["datasets", "forge", "glas"]
    with pytest.raises(SystemExit) as caught:
        main([*verb, f"{option}={value}"])
    assert caught.value.code == 2
    assert "give a whole number from" in capsys.readouterr().err
