"""Learned weights and joint directions: effect on training, and settings that rule them out."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from datamodules.core.errors import ConfigError
from models.module import MultiTaskModule
from models.training.loss_weighting import JointDirection, LossWeights
from tests.models.test_module import backward, fit, gradients, make
from tests.support.synthetic_batches import SIZE, SPECS, TASKS, draw, optim, tiny_model

NAMES = tuple(TASKS)


def balanced(method: str, **changes) -> MultiTaskModule:
    torch.manual_seed(0)
    settings = {"image_size": SIZE, **changes}
    return MultiTaskModule(SPECS, tiny_model(), optim(balancing=method), **settings)


def test_learned_weights_start_from_the_fixed_ones():
    fixed, learned = make(), balanced("uncertainty")
    for module in (fixed, learned):
        backward(module, draw(NAMES))
    expected, actual = gradients(fixed), gradients(learned)
    slope = actual.pop("loss_weights.log_variance")
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    losses = torch.stack([learned.losses[spec.key].detach() for spec in SPECS])
    torch.testing.assert_close(slope, (1 - losses) / len(SPECS))


def test_a_learned_weight_becomes_the_reciprocal_of_its_loss():
    weights = LossWeights(SPECS, "uncertainty")
    losses = {spec.key: torch.tensor(0.2 * (i + 1)) for i, spec in enumerate(SPECS)}
    optimizer = torch.optim.SGD(weights.parameters(), lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        weights(losses).backward()
        optimizer.step()
    expected = {key: 1 / loss.item() for key, loss in losses.items()}
    assert weights.learned() == pytest.approx(expected, rel=1e-2)


def test_learned_weights_are_trained_logged_and_kept_in_checkpoints(tmp_path):
    module = balanced("uncertainty", micro_batches_per_round=len(NAMES))
    trainer = fit(module, tmp_path)
    (group,) = [g for g in trainer.optimizers[0].param_groups if len(g["params"][0]) == len(SPECS)]
    assert (group["weight_decay"], len(group["params"])) == (0.0, 1)
    logged = [row for _, row in trainer.logger.rows if "balancing/organ/class/weight" in row]
    assert len(logged) == 3
    assert (
        logged[0]["balancing/organ/class/weight"]
        == 1.0
        != logged[2]["balancing/organ/class/weight"]
    )
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again = MultiTaskModule.from_checkpoint(str(tmp_path / "run.ckpt"))
    assert again.loss_weights.learned() == module.loss_weights.learned()
    assert set(again.loss_weights.learned()) == {spec.key for spec in SPECS}


@pytest.mark.parametrize("method", ["uncertain", "UPGrad", "torchjd"])
def test_an_unknown_balancing_is_an_error_that_lists_the_known_ones(method):
    with pytest.raises(ConfigError, match=r"give fixed, uncertainty, or torchjd:"):
        balanced(method)


def test_joint_directions_reject_settings_that_rule_them_out(tmp_path):
    with pytest.raises(ConfigError, match=r"set data\.tasks_per_batch=0"):
        balanced("torchjd:UPGrad", micro_batches_per_round=2)
    with pytest.raises(ConfigError, match=r"set model\.compile=false"):
        MultiTaskModule(
            SPECS, tiny_model(compile=True), optim(balancing="torchjd:UPGrad"), image_size=SIZE
        )


@pytest.mark.skipif(find_spec("torchjd") is not None, reason="torchjd is installed")
def test_a_missing_torchjd_is_an_error_with_the_command_that_installs_it():
    with pytest.raises(ConfigError, match=r"torchjd is not installed; make install EXTRAS="):
        balanced("torchjd:UPGrad")


@pytest.fixture
def torchjd():
    return pytest.importorskip("torchjd", reason="the extra `balancing` is not installed")


def test_the_mean_of_task_gradients_equals_fixed_weights(torchjd):
    fixed, joint = make(), balanced("torchjd:Mean")
    backward(fixed, draw(NAMES))
    batch = joint.on_after_batch_transfer(draw(NAMES), 0)
    joint.backward(joint.micro_batch_loss(batch))
    actual = gradients(joint)
    for name, gradient in gradients(fixed).items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_a_joint_direction_opposes_no_task(torchjd):
    shared, of_head = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    rows = torch.tensor([[-4.0, 1.0], [6.0, 1.0]])
    assert (rows @ rows.mean(0)).min() < 0  # the mean opposes the first task
    losses = [row @ shared + of_head.sum() for row in rows]
    JointDirection("UPGrad").backward(losses, [shared], [of_head])
    assert (rows @ shared.grad).min() >= -1e-5
    assert of_head.grad.tolist() == [1, 1]


def test_a_joint_direction_trains_and_rejects_unsupported_trainers(torchjd, tmp_path):
    module = balanced("torchjd:UPGrad")
    before = {name: value.clone() for name, value in module.named_parameters()}
    fit(module, tmp_path, gradient_clip_val=1.0)
    assert all(not torch.equal(value, before[name]) for name, value in module.named_parameters())
    with pytest.raises(ConfigError, match=r"set trainer\.rounds_per_step=1"):
        fit(balanced("torchjd:UPGrad"), tmp_path, accumulate_grad_batches=2)
    with pytest.raises(ConfigError, match=r"no such aggregator.*UPGrad"):
        balanced("torchjd:UPGard")
    with pytest.raises(ConfigError, match="has a state"):
        balanced("torchjd:GradVac")
