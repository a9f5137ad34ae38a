"""The folder for the hub loads in timm, and a failed upload gives one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from datamodules.core.errors import ConfigError, DiskError
from lightning_app.publish.hub import check_name, write_hub_folder
from lightning_app.publish.model_card import write_model_card
from models.inference.export import export_encoder
from models.network.encoder import Encoder
from tests.lightning_app.publish.test_model_card import SCORES, SPLITS, described, origin
from tests.support.synthetic_batches import tiny_model


def finished_run(folder: Path, name: str, size: int) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(tiny_model(encoder=name), size).eval()
    export_encoder(encoder, folder)
    write_model_card(folder, origin(glands=described()), SCORES, SPLITS)
    return encoder


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 64), ("vit_tiny_patch16_224", 96), ("coatnet_nano_rw_224", 96)],
)
def test_timm_loads_the_folder_for_the_hub(name, size, tmp_path):
    encoder = finished_run(tmp_path / "run", name, size)
    folder = write_hub_folder(tmp_path / "run", tmp_path / "hub")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(model(images), encoder(images).embedding, rtol=1e-4, atol=1e-5)
    settings = timm.data.resolve_model_data_config(model)
    assert settings["input_size"] == (3, size, size)
    assert (tuple(settings["mean"]), tuple(settings["std"])) == (encoder.mean, encoder.std)


def test_the_card_on_the_hub_gives_loading_code_and_terms(tmp_path):
    finished_run(tmp_path / "run", "resnet18", 64)
    folder = write_hub_folder(tmp_path / "run", tmp_path / "hub", "group/encoder")
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: timm\n")
    assert 'timm.create_model("hf-hub:group/encoder", pretrained=True)' in text
    assert "load_file" not in text
    assert "Terms: weights trained on non-commercial data: glands." in text
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "encoder.json", "model.safetensors"}
    with pytest.raises(ConfigError, match="holds files already"):
        write_hub_folder(tmp_path / "run", tmp_path / "hub")


def test_a_full_disk_is_one_line_and_leaves_no_folder(tmp_path, small_disk):
    finished_run(tmp_path / "run", "resnet18", 64)
    small_disk.fill(leave=1_000_000)
    with pytest.raises(DiskError, match=r"hub: the weights cannot be written \(.*No space left"):
        write_hub_folder(tmp_path / "run", small_disk.place / "hub")
    assert [path.name for path in small_disk.place.iterdir()] == ["ballast"]


@pytest.mark.parametrize("name", ["encoder", "a/b/c", "group/en coder", "/x", "group/"])
def test_an_invalid_repository_name_is_refused(name):
    with pytest.raises(ConfigError, match="--push"):
        check_name(name)


@pytest.mark.slow
def test_an_unreachable_hub_gives_one_line_and_keeps_the_folder(repository, tmp_path):
    finished_run(tmp_path / "run", "resnet18", 64)
    environment = {
        **os.environ,
        "PYTHONPATH": str(repository),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_TOKEN": "hf_none",
        "HF_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "lightning_app", "export", "run", "--out", "hub"]
    done = subprocess.run(
        [*command, "--push", "group/encoder"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: --push group/encoder: ") and "uploaded later" in line
    assert timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).num_classes == 0
