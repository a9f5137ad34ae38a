"""Presets: small replicas in the hub's file layout, loaded through the path of the real ones."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from datamodules.core.errors import EncoderError, WeightsError
from datamodules.formats.images import write_image
from lightning_app.cli import main
from models.inference.loading import load_encoder
from models.inference.preset_models import layers_of
from models.inference.presets import PRESETS

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
GIGAPATH = {"patch_size": 16, "img_size": 224, "mlp_ratio": 5.33334}
VIRCHOW = {"mlp_ratio": 5.3375, "init_values": 1e-5, "global_pool": ""}
PUBLISHED = {  # architecture and arguments in the config.json of each repository
    "uni": ("vit_large_patch16_224", {}),
    "uni2-h": ("vit_giant_patch14_224", {}),
    "virchow": ("vit_huge_patch14_224", VIRCHOW),
    "virchow2": ("vit_huge_patch14_224", {**VIRCHOW, "reg_tokens": 4}),
    "h-optimus-0": ("vit_giant_patch14_reg4_dinov2", {"img_size": 224}),
    "h-optimus-1": ("vit_giant_patch14_reg4_dinov2", {"img_size": 224}),
    "h0-mini": ("vit_base_patch14_reg4_dinov2", {"img_size": 224, "global_pool": ""}),
    "prov-gigapath": ("vit_giant_patch14_dinov2", GIGAPATH),
    "kaiko-vits16": ("vit_small_patch16_224", {}),
    "kaiko-vits8": ("vit_small_patch8_224", {}),
    "kaiko-vitb16": ("vit_base_patch16_224", {}),
    "kaiko-vitb8": ("vit_base_patch8_224", {}),
    "kaiko-vitl14": ("vit_large_patch14_reg4_dinov2", {}),
    "lunit-vits16": ("vit_small_patch16_224", {}),
    "lunit-vits8": ("vit_small_patch8_224", {}),
}
REGISTERS = {"uni2-h": 8, **dict.fromkeys(
    ("virchow2", "h-optimus-0", "h-optimus-1", "h0-mini", "kaiko-vitl14"), 4
)}  # fmt: skip
TIMM = [name for name, preset in PRESETS.items() if preset.library == "timm"]


def pixels(n: int = 2, side: int = 224) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, side, side, 3), generator=g, dtype=torch.uint8)


def save_replica(name: str, folder: Path) -> torch.nn.Module:
    """Write config.json and weights as on the hub, with 2 blocks of width 32."""
    architecture, model_args = PUBLISHED[name]
    torch.manual_seed(0)
    arguments = {**model_args, **layers_of(PRESETS[name]), **SMALL}
    model = timm.create_model(architecture, num_classes=0, **arguments).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    folder.mkdir(parents=True)
    facts = {"architecture": architecture, "num_classes": 0, "model_args": {**model_args, **SMALL}}
    (folder / "config.json").write_text(json.dumps({**facts, "pretrained_cfg": {}}))
    if name in ("uni2-h", "prov-gigapath"):  # these repositories have only this file
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        save_file(model.state_dict(), folder / "model.safetensors")
    return model


def small(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS[name]
    sizes = {key: value for key, value in SMALL.items() if key in preset.arguments}
    monkeypatch.setitem(PRESETS, name, replace(preset, arguments={**preset.arguments, **sizes}))


@pytest.mark.parametrize("name", TIMM)
def test_a_replica_gives_the_tokens_that_its_authors_name(name, tmp_path, monkeypatch):
    model = save_replica(name, tmp_path / "copy")
    small(name, monkeypatch)
    encoder = load_encoder(f"{name}:{tmp_path / 'copy'}", image_size=96)
    preset = PRESETS[name]
    assert (encoder.name, encoder.input_size, encoder.pool) == (name, 224, preset.pool)
    if PUBLISHED[name][1].get("img_size", 224) != 224 or name == "kaiko-vitl14":
        model = encoder.model
    x = pixels().permute(0, 3, 1, 2).double() / 255
    x = (x - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(3, 1, 1)
    with torch.no_grad():
        tokens = model.forward_features(x.float())
    first = 1 + REGISTERS.get(name, 0)
    assert model.num_prefix_tokens == first
    expected = tokens[:, 0]
    if preset.pool == "cls+mean":
        expected = torch.cat([expected, tokens[:, first:].mean(1)], 1)
    torch.testing.assert_close(encoder.embed(pixels()), expected, rtol=1e-3, atol=1e-4)
    patch = model.patch_embed.patch_size[0]
    assert encoder.embed_dense(pixels(1)).shape == (1, 32, 224 // patch, 224 // patch)
    assert encoder.embed(pixels(1, side=96)).shape == (1, expected.shape[1])


@pytest.mark.parametrize("name", TIMM)
def test_the_full_model_of_a_preset_can_be_built_and_has_the_stated_width(name):
    architecture, model_args = PUBLISHED[name]
    with torch.device("meta"):
        model = timm.create_model(
            architecture, num_classes=0, **{**model_args, **layers_of(PRESETS[name])}
        )
    assert model.num_features * (1 + (PRESETS[name].pool == "cls+mean")) == PRESETS[name].dim


@pytest.mark.parametrize("name", ["phikon", "phikon-v2", "midnight"])
def test_a_replica_that_transformers_loads_gives_its_tokens(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the extra transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if name == "phikon":
        config = transformers.ViTConfig(**sizes, intermediate_size=64)
        model = transformers.ViTModel(config, add_pooling_layer=False)
    else:
        config = transformers.Dinov2Config(
            **sizes, patch_size=16 if name == "phikon-v2" else 14, use_swiglu_ffn=name == "midnight"
        )
        model = transformers.Dinov2Model(config)
    model.eval().save_pretrained(tmp_path / "copy")
    encoder = load_encoder(f"{name}:{tmp_path / 'copy'}")
    preset = PRESETS[name]
    x = pixels().permute(0, 3, 1, 2).double() / 255
    x = (x - torch.tensor(preset.mean).view(3, 1, 1)) / torch.tensor(preset.std).view(3, 1, 1)
    with torch.no_grad():
        tokens = (
            model(pixel_values=x.float(), interpolate_pos_encoding=True).last_hidden_state
            if name == "phikon"
            else model(pixel_values=x.float()).last_hidden_state
        )
    expected = tokens[:, 0]
    if preset.pool == "cls+mean":
        expected = torch.cat([expected, tokens[:, 1:].mean(1)], 1)
    torch.testing.assert_close(encoder.embed(pixels()), expected, rtol=1e-3, atol=1e-4)
    assert encoder.identity == load_encoder(f"{name}:{tmp_path / 'copy'}").identity
    assert encoder.embed_dense(pixels(1)).shape[1] == 32


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="it is installed")
def test_a_missing_extra_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r'make install EXTRAS="offline-weights dev transf'):
        load_encoder("phikon")


def test_pooling_is_part_of_name_and_identity_and_gives_what_it_says(tmp_path):
    save_replica("virchow2", tmp_path / "copy")
    by_pool = {
        pool: load_encoder(f"virchow2:{tmp_path / 'copy'}{pool}")
        for pool in ("", "@cls+mean", "@cls", "@mean")
    }
    assert [e.name for e in by_pool.values()] == ["virchow2", "virchow2", *(
        ["virchow2@cls", "virchow2@mean"]
    )]  # fmt: skip
    assert by_pool[""].identity == by_pool["@cls+mean"].identity
    assert len({e.identity for e in by_pool.values()}) == 3
    both = by_pool[""].embed(pixels())
    assert torch.equal(by_pool["@cls"].embed(pixels()), both[:, :32])
    assert torch.equal(by_pool["@mean"].embed(pixels()), both[:, 32:])


def test_any_encoder_can_be_pooled_otherwise_and_a_convnet_refuses_a_class_token():
    own, mean = load_encoder("random:test_vit"), load_encoder("random:test_vit@mean")
    assert (own.name, mean.name) == ("random:test_vit", "random:test_vit@mean")
    assert own.digest == mean.digest and own.identity != mean.identity
    named = load_encoder("random:test_vit@cls")
    images = pixels(side=160)
    torch.testing.assert_close(named.embed(images), own.embed(images))
    assert not torch.allclose(mean.embed(images), own.embed(images))
    net = load_encoder("random:test_resnet@mean", 64)
    assert torch.equal(net.embed(pixels(side=64)), load_encoder("random:test_resnet", 64).embed(
        pixels(side=64)
    ))  # fmt: skip
    for pool in ("cls", "cls+mean"):
        with pytest.raises(EncoderError, match=f"random:test_resnet@.*name it without @{pool[:3]}"):
            load_encoder(f"random:test_resnet@{pool}")
    with pytest.raises(EncoderError, match="no class token; name it with @mean"):
        load_encoder("random:vit_pwee_patch16_reg1_gap_256@cls")


def test_stages_are_the_means_of_a_convnets_maps():
    encoder = load_encoder("random:resnet18@stages", 64)
    images = pixels(side=64)
    x = images.permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(encoder.mean).view(3, 1, 1)) / torch.tensor(encoder.std).view(3, 1, 1)
    model, means = encoder.model, []
    x = model.maxpool(model.act1(model.bn1(model.conv1(x))))
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        means.append(x.mean((2, 3)))
    torch.testing.assert_close(encoder.embed(images), torch.cat(means, 1))
    with pytest.raises(EncoderError, match="test_vit@stages: it has no stages"):
        load_encoder("random:test_vit@stages")


def test_a_convnet_gives_a_dense_map_of_sixteen_pixels_per_cell():
    assert load_encoder("random:resnet18").embed_dense(pixels(1, 64)).shape == (1, 256, 4, 4)


def error_of(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    errors = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin"])
def test_a_folder_that_lacks_a_file_is_an_error_with_the_remedy(tmp_path, capsys, missing):
    save_replica("uni2-h", tmp_path / "copy")
    (tmp_path / "copy" / missing).unlink()
    out = tmp_path / "f.h5"
    write_image(tmp_path / "images/1.png", np.zeros((32, 32, 3), np.uint8))
    told = error_of(
        capsys,
        ["embed", f"uni2-h:{tmp_path / 'copy'}", str(tmp_path / "images"), "--out", str(out)],
    )
    assert missing in told and "hf download MahmoodLab/UNI2-h --local-dir" in told
    assert not out.exists()


def test_the_whole_error_of_weights_that_do_not_fit_is_shown_with_the_remedy(tmp_path):
    save_replica("virchow", tmp_path / "copy")
    with pytest.raises(WeightsError) as plain:  # config.json cannot hold the gated MLP
        load_encoder(f"local-dir:{tmp_path / 'copy'}@cls")
    told = str(plain.value)
    assert "blocks.1.mlp.fc2.weight" in told, "the last tensor that does not fit"
    assert "named by its preset" in told and "..." not in told
    with pytest.raises(WeightsError, match=r"size mismatch.*hf download owkin|hf download 1aurent"):
        load_encoder(f"kaiko-vits8:{tmp_path / 'copy'}")


def test_list_and_show_print_the_facts(capsys):
    assert main(["encoders", "list"]) == 0
    told = capsys.readouterr().out
    assert all(f" {name} " in told for name in PRESETS)
    assert main(["encoders", "show", "uni2-h"]) == 0
    told = capsys.readouterr().out
    assert (
        "mlp_layer=SwiGLUPacked" in told and "CC-BY-NC-ND-4.0" in told and "gated       yes" in told
    )
    assert "did you mean uni, uni2-h?" in error_of(capsys, ["encoders", "show", "uni2"])


class Gate(BaseHTTPRequestHandler):
    """A hub that knows one open repository and refuses all others without a login."""

    def do_HEAD(self) -> None:
        if self.path.startswith("/bioptimus/H-optimus-0/"):
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", "0" * 40)
        else:
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_a_gated_model_without_login_ends_in_one_line_and_doctor_tells_who_asks(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    write_image(tmp_path / "images/1.png", np.zeros((32, 32, 3), np.uint8))
    endpoint = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hub")}
    environment.pop("HF_HUB_OFFLINE", None)
    code = (
        "import sys; from lightning_app.cli import main; from lightning_app.commands import doctor;"
        "print(list(doctor.weights(5.0))[-1].text); sys.exit(main(sys.argv[1:]))"
    )
    command = ["embed", "uni2-h", str(tmp_path / "images"), "--out", str(tmp_path / "f.h5")]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    errors = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(errors) == 1, done.stderr
    assert f"accept its terms at {endpoint}/MahmoodLab/UNI2-h and run `hf auth login`" in errors[0]
    assert "can be fetched: h-optimus-0;" in done.stdout
    assert "needs access: uni, uni2-h" in done.stdout
    assert not (tmp_path / "f.h5").exists()
