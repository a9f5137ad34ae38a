"""Damaged exports, foreign checkpoints and encoders without pooling end in one line and exit 2."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from datamodules.core.errors import EncoderError, UserError, WeightsError
from datamodules.formats.images import write_image
from lightning_app.cli import main
from models.inference.export import digest, export_encoder
from models.inference.loading import load_encoder
from models.network.encoder import Encoder
from tests.support.synthetic_batches import tiny_model

SIDE = 32
ABSENT = object()
TIMM_SAYS = ("Loading pretrained", "Found preferred", "Loaded ")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    export_encoder(Encoder(tiny_model(encoder="test_resnet"), SIDE), folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_image(folder / "1.png", np.full((SIDE, SIDE, 3), 90, np.uint8))
    return folder


def one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    errors = [line for line in told.splitlines() if not line.startswith(TIMM_SAYS)]
    assert len(errors) == 1 and errors[0].startswith("error: ") and len(errors[0]) < 700, told
    return errors[0]


FACTS: list[tuple[str, Any]] = [
    *(("timm_name", v) for v in (ABSENT, "no_such_model", "", None, 3, ["resnet18"], "hf-hub:a/b")),
    *(("input_size", v) for v in (ABSENT, 0, -32, 10**6, 32.5, "32", True, None, [32])),
    *(("mean", v) for v in (ABSENT, [0.5], [float("nan")] * 3, ["a"] * 3, 0.5, [9.0] * 3, None)),
    *(("std", v) for v in (ABSENT, [0.0] * 3, [0.2], [-0.2] * 3, [float("inf")] * 3, [1e-30] * 3)),
    *(("model_kwargs", v) for v in (ABSENT, None, [], {"checkpoint_path": "x"}, {"img_size": "a"})),
    *(("digest", v) for v in (ABSENT, "", 7, "0" * 64)),
    *(("embedding_dim", v) for v in (ABSENT, "96", -1)),
    *(("interpolation", v) for v in (ABSENT, 3)),
    *(("datasets", v) for v in ([], {"a": 3}, {"a": {"role": "train", "sources": 3}})),
]


@pytest.mark.parametrize(("key", "value"), FACTS)
def test_wrong_facts_of_an_encoder_are_named(exported, images, tmp_path, capsys, key, value):
    shutil.copytree(exported, tmp_path / "e")
    path = tmp_path / "e/encoder.json"
    facts = json.loads(path.read_text())
    facts.pop(key, None)
    path.write_text(json.dumps(facts if value is ABSENT else {**facts, key: value}))
    out = tmp_path / "f.h5"
    told = one_line(capsys, ["embed", str(tmp_path / "e"), str(images), "--out", str(out)])
    assert key in told or value == "0" * 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e"]


NO_FACTS = ("", "{", "[]", "3", "null", "[" * 100_000, '{"a": "\udcff"}', "9" * 5000)


@pytest.mark.parametrize("text", NO_FACTS)
def test_a_file_of_facts_that_is_none_is_named(exported, images, tmp_path, capsys, text):
    shutil.copytree(exported, tmp_path / "e")
    (tmp_path / "e/encoder.json").write_bytes(text.encode(errors="surrogateescape"))
    told = one_line(capsys, ["embed", str(tmp_path / "e"), str(images), "--out", "f.h5"])
    assert "encoder.json: not an encoder's facts" in told


def _without(state):
    return {key: value for key, value in state.items() if key != "conv1.0.weight"}


def _more(state):
    return {**state, "further": torch.zeros(3)}


def _other_shape(state):
    return {**state, "conv1.0.weight": torch.zeros(2, 2)}


def _whole_numbers(state):
    return {k: v.to(torch.int8) if v.is_floating_point() else v for k, v in state.items()}


def _nan(state):
    key = next(k for k, v in state.items() if v.ndim == 4)
    changed = state[key].clone()
    changed.view(-1)[5] = torch.nan
    return {**state, key: changed}


@pytest.mark.parametrize("described", [True, False], ids=["digest fits", "digest of before"])
@pytest.mark.parametrize("change", [_without, _more, _other_shape, _whole_numbers, _nan])
def test_wrong_tensors_are_refused(exported, images, tmp_path, capsys, change, described):
    shutil.copytree(exported, tmp_path / "e")
    weights, facts = tmp_path / "e/encoder.safetensors", tmp_path / "e/encoder.json"
    state = change(load_file(weights))
    save_file(state, weights)
    if described:
        told = {**json.loads(facts.read_text()), "digest": digest(state)}
        facts.write_text(json.dumps(told))
    for spec in (str(tmp_path / "e"), f"{weights}:test_resnet"):
        one_line(capsys, ["embed", spec, str(images), "--out", str(tmp_path / "f.h5")])
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize("pool", ["", "avg"])
def test_an_encoder_that_returns_tokens_is_refused_and_one_that_pools_is_not(
    images, tmp_path, capsys, pool
):
    model = timm.create_model("test_vit", num_classes=0, global_pool=pool)
    save_for_hf(model, str(tmp_path / "m"), model_args={"global_pool": pool})
    out = tmp_path / "f.h5"
    arguments = ["embed", f"local-dir:{tmp_path / 'm'}", str(images), "--out", str(out)]
    if pool:
        assert main(arguments) == 0
        return
    assert "does not return one vector for each image" in one_line(capsys, arguments)
    assert not out.exists()


def test_encoders_that_pool_otherwise_or_see_other_colours_have_other_identities(tmp_path):
    """The same weights: token or mean of tokens; mean and maximum; another mean colour."""
    model = timm.create_model("test_vit", num_classes=0)
    other = timm.create_model("test_resnet", num_classes=0)
    folders = {}
    for number, (built, arguments, data) in enumerate(
        [
            (model, {}, None),
            (model, {"global_pool": "avg", "fc_norm": False}, None),
            (model, {}, {"mean": (0.1, 0.1, 0.1)}),
            (other, {}, None),
            (other, {"global_pool": "max"}, None),
        ]
    ):
        folders[number] = tmp_path / str(number)
        save_for_hf(built, str(folders[number]))
        path = folders[number] / "config.json"
        config = json.loads(path.read_text())
        config["pretrained_cfg"] |= data or {}
        config["model_args"] = arguments
        config["global_pool"] = arguments.get("global_pool", config["global_pool"])
        path.write_text(json.dumps(config))
    loaded = [load_encoder(f"local-dir:{folder}", image_size=64) for folder in folders.values()]
    assert loaded[0].digest == loaded[1].digest == loaded[2].digest
    assert loaded[3].digest == loaded[4].digest
    assert len({encoder.identity for encoder in loaded}) == 5
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    features = [encoder.embed(pixels) for encoder in loaded]
    assert not torch.allclose(features[0], features[1])
    assert not torch.allclose(features[3], features[4])
    again = load_encoder(f"local-dir:{folders[1]}", image_size=64)
    assert again.identity == loaded[1].identity


@pytest.mark.parametrize("mean", [[0.5], "abc", 3, [float("nan")] * 3])
def test_a_foreign_config_with_a_wrong_mean_is_refused(tmp_path, mean):
    save_for_hf(timm.create_model("test_resnet", num_classes=0), str(tmp_path / "m"))
    config = json.loads((tmp_path / "m/config.json").read_text())
    config["pretrained_cfg"]["mean"] = mean
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    with pytest.raises((EncoderError, WeightsError)) as caught:
        load_encoder(f"local-dir:{tmp_path / 'm'}")
    assert "\n" not in str(caught.value)


def _foreign(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("no checkpoint\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("readme.txt", "hello")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": {}}))
    elif kind == "truncated":
        torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "code":
        torch.save({"state_dict": Path("x"), "f": print}, path)
    else:
        torch.save(CHECKPOINTS[kind], path)


CHECKPOINTS: dict[str, Any] = {
    "a list": [1, 2],
    "a number": 7,
    "a tensor": torch.zeros(3),
    "a state dict": timm.create_model("test_resnet").state_dict(),
    "of another program": {"state_dict": {"w": torch.zeros(3)}, "hyper_parameters": {"lr": 0.1}},
    "without tasks": {"state_dict": {}, "hyper_parameters": {"model": {"encoder": "x"}}},
    "wrong types": {"state_dict": 3, "hyper_parameters": {"specs": 3, "model": {}, "optim": None}},
    "weights of another": {
        "state_dict": {"w": torch.zeros(3)},
        "hyper_parameters": {
            **{"specs": [], "model": {"encoder": "test_resnet"}, "optim": {}, "image_size": 64},
        },
    },
}


@pytest.mark.parametrize(
    "kind", ["text", "empty", "zip", "pickle", "truncated", "code", *CHECKPOINTS]
)
def test_what_is_no_checkpoint_is_not_exported(tmp_path, capsys, kind):
    path = tmp_path / "x.ckpt"
    _foreign(kind, path)
    assert "x.ckpt: " in one_line(capsys, ["export", str(path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"x\.ckpt"):
        load_encoder(path)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("imagenet:no_such_model", "no such timm model"),
        ("random:no_such_model", "no such timm model"),
        ("random:resnet18.no_such_tag", "resnet18"),
        ("hf-hub:../../x", "hf-hub:../../x"),
        ("hf-hub:", "nothing there"),
        ("local-dir:../../no_such_folder", "no_such_folder"),
    ],
)
def test_names_of_encoders_that_do_not_exist_are_one_line(images, capsys, spec, told):
    assert told in one_line(capsys, ["embed", spec, str(images), "--out", "f.h5"])
