"""Gradient conflicts: correct numbers, and no effect on training."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from datamodules.core.errors import ConfigError
from lightning_app.callbacks.gradient_conflicts import (
    GradientConflicts,
    conflicts,
    last_shared_weight,
)
from models.module import MultiTaskModule
from models.network.encoder import Encoder
from models.training.loss_weighting import check_training
from tests.models.test_module import fit, make
from tests.support.synthetic_batches import SIZE, SPECS, TASKS, draw, optim, tiny_model

NAMES = tuple(TASKS)


def rows_of(trainer) -> dict[int, dict[str, float]]:
    """Logged gradient metrics by optimizer step."""
    return {s: row for s, row in trainer.logger.rows if any("gradients/" in key for key in row)}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_bit_identical_when_gradients_are_compared(tmp_path, checkpointing):
    states = []
    for callbacks in ([], [GradientConflicts(1)]):
        torch.manual_seed(0)
        model = tiny_model(drop_path=0.2, grad_checkpointing=checkpointing)
        groups = 1 if checkpointing else len(NAMES)
        module = MultiTaskModule(SPECS, model, optim(), SIZE, groups, stain_strength=0.1)
        trainer = fit(module, tmp_path, callbacks=callbacks)
        states.append(module.state_dict())
    assert list(rows_of(trainer)) == [0, 1, 2]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_norms_and_cosines_are_those_of_the_tasks_gradients(tmp_path):
    metrics = rows_of(fit(make(), tmp_path, callbacks=[GradientConflicts(1)]))[0]
    module = make()
    module.micro_batch_loss(module.on_after_batch_transfer(draw(NAMES, images=3), 0))
    weight = module.model.encoder.model.stages[3].blocks[1].mlp.fc2.weight
    by_task = {
        key: torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten()
        for key, loss in module.losses.items()
    }
    pairs = [key for key in metrics if "cosine" in key]
    assert len(pairs) == len(SPECS) * (len(SPECS) - 1) // 2
    for key in pairs:
        one, other = (by_task[name] for name in key.removeprefix("gradients/cosine/").split("|"))
        cosine = one @ other / (one.norm() * other.norm())
        assert metrics[key] == pytest.approx(cosine.item(), abs=1e-4)
    for key, gradient in by_task.items():
        assert metrics[f"gradients/{key}/norm"] == pytest.approx(gradient.norm().item(), rel=1e-3)


def test_logged_values_do_not_depend_on_the_tasks_per_micro_batch(tmp_path):
    whole, split = (
        rows_of(
            fit(make(micro_batches_per_round=groups), tmp_path, callbacks=[GradientConflicts(2)])
        )
        for groups in (1, len(NAMES))
    )
    assert list(whole) == list(split) == [1]  # the second of three steps
    assert split[1] == pytest.approx(whole[1], rel=1e-2, abs=1e-3)


def test_two_rounds_a_step_are_averaged(tmp_path):
    once = rows_of(fit(make(), tmp_path, callbacks=[GradientConflicts(1)]))[0]
    module = make()
    settings = {"accumulate_grad_batches": 2, "callbacks": [GradientConflicts(1)]}
    twice = rows_of(fit(module, tmp_path, **settings))[0]
    key = "gradients/organ/class/norm"
    assert 0.4 * once[key] < twice[key] < 1.6 * once[key]


def test_cosines_with_a_gradient_of_zero_are_left_out():
    rows = torch.tensor([[1.0, 0, 0], [0, 0, 0], [-2, 0, 0]])
    assert conflicts(["a", "b", "c"], rows) == {
        "gradients/a/norm": 1,
        "gradients/b/norm": 0,
        "gradients/c/norm": 2,
        "gradients/cosine/a|c": -1,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", "layer4.1.conv2.weight"),
        ("tf_efficientnet_lite0", "blocks.6.0.conv_pwl.weight"),  # not conv_head: no map uses it
        ("vit_tiny_patch16_224", "blocks.11.mlp.fc2.weight"),
        ("swin_tiny_patch4_window7_224", "layers.3.blocks.1.mlp.fc2.weight"),
        ("densenet121", "features.denseblock4.denselayer16.conv2.weight"),
    ],
)
def test_gradients_are_compared_at_the_last_weight_that_all_heads_depend_on(name, expected):
    size = 96 if name.startswith(("swin", "vit")) else 64
    encoder = Encoder(tiny_model(encoder=name), size)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    shared = last_shared_weight(encoder)
    (key,) = [key for key, weight in encoder.model.named_parameters() if weight is shared]
    assert key == expected
    assert encoder.training
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_a_frozen_encoder_end_is_not_compared_and_training_continues(tmp_path, caplog):
    module = make()
    module.model.encoder.requires_grad_(False)
    trainer = fit(module, tmp_path, callbacks=[GradientConflicts(1)])
    assert rows_of(trainer) == {}
    assert "not compared: the end of the encoder is frozen" in caplog.text
    head_only = Encoder(tiny_model(encoder="tf_efficientnet_lite0"), SIZE).requires_grad_(False)
    head_only.model.conv_head.requires_grad_(True)
    assert last_shared_weight(head_only) is None


def test_sharded_weights_are_not_compared_and_learned_balancing_is_refused(tmp_path, caplog):
    dist.init_process_group("gloo", f"file://{tmp_path}/ranks", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        module = MultiTaskModule(SPECS, tiny_model(channels_last=False), optim(), SIZE)
        fully_shard(module.model, mesh=mesh)
        GradientConflicts(1).on_fit_start(pl.Trainer(accelerator="cpu", logger=False), module)
        assert "FSDP shards the encoder's weights" in caplog.text
        with pytest.raises(ConfigError, match=r"balancing=uncertainty.*strategy=ddp"):
            check_training("uncertainty", module, None)
    finally:
        dist.destroy_process_group()
