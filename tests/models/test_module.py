from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from datamodules.core.errors import ConfigError
from datamodules.core.records import Task, TaskKind
from datamodules.stream.batch import DetectionTarget, MultiTaskBatch, Part
from models.config import Schedule
from models.module import MultiTaskModule
from models.tasks import TaskSpec
from models.training.optimizer import parameter_groups, scaled, schedule
from tests.support.synthetic_batches import SIZE, SPECS, TASKS, draw, optim, tiny_model

NAMES = tuple(TASKS)


def make(seed: int = 0, **changes) -> MultiTaskModule:
    torch.manual_seed(seed)
    arguments = {"image_size": SIZE, **changes}
    return MultiTaskModule(SPECS, tiny_model(), optim(), **arguments)


def backward(module: MultiTaskModule, batch: MultiTaskBatch, share: float = 1.0) -> None:
    prepared = module.on_after_batch_transfer(batch, 0)
    (module.micro_batch_loss(prepared) * share).backward()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("per_batch", [1, 2, 3])
def test_the_gradient_of_a_round_does_not_depend_on_the_tasks_per_micro_batch(per_batch):
    whole = make()
    backward(whole, draw(NAMES))
    groups = [NAMES[i : i + per_batch] for i in range(0, len(NAMES), per_batch)]
    split = make(micro_batches_per_round=len(groups))
    for group in groups:
        backward(split, draw(group), 1 / len(groups))  # as Lightning divides when it accumulates
    expected, actual = gradients(whole), gradients(split)
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_whatever_the_micro_batch_holds(name):
    module = make()
    backward(module, draw([name]))
    assert [n for n, p in module.named_parameters() if p.grad is None] == []


def test_outputs_of_a_dataset_do_not_depend_on_the_others_in_the_batch():
    module = make().eval()
    together = module.on_after_batch_transfer(draw(NAMES), 0)
    with torch.no_grad():
        everything, _ = module.model(together.images, together.parts)
        for name in NAMES:
            alone = module.on_after_batch_transfer(draw([name]), 0)
            outputs, _ = module.model(alone.images, alone.parts)
            for key, output in outputs.items():
                torch.testing.assert_close(output, everything[key], rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_over_tasks_by_their_weights():
    light = [TaskSpec("organ", TASKS["organ"][0]), TaskSpec("grade", TASKS["grade"][0], 0.0)]
    heavy = [
        light[0],
        TaskSpec("grade", Task("score", TaskKind.REGRESSION, low=0, high=1, weight=3.0)),
    ]
    values = []
    for specs in (light, heavy, light[:1], light[1:]):
        torch.manual_seed(0)
        module = MultiTaskModule(specs, tiny_model(), optim(), image_size=SIZE)
        module.load_state_dict(make().state_dict(), strict=False)
        names = [spec.dataset for spec in specs]
        batch = module.on_after_batch_transfer(draw(names), 0)
        values.append(module.micro_batch_loss(batch).item())
    equal, threefold, organ, grade = values
    assert equal == pytest.approx((organ + grade) / 2, rel=1e-4)
    assert threefold == pytest.approx((organ + 3 * grade) / 4, rel=1e-4)


class Replicated(nn.Module):
    """What distributed training wraps: forward is the loss of a micro-batch."""

    def __init__(self, module: MultiTaskModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: MultiTaskBatch) -> Tensor:
        return self.module.micro_batch_loss(self.module.on_after_batch_transfer(batch, 0))


def half(batch: MultiTaskBatch, rank: int) -> MultiTaskBatch:
    """Every dataset's first or last images; unequal shares, so that counts matter."""
    pixels, parts, start = [], [], 0
    for part in batch.parts:
        cut = slice(0, 1) if rank == 0 else slice(1, len(part))
        n = len(range(len(part))[cut])
        targets = {}
        for name, target in part.targets.items():
            if isinstance(target, DetectionTarget):
                keep = (target.image == 0) == (rank == 0)
                image = target.image[keep] - rank
                targets[name] = DetectionTarget(target.boxes[keep], target.labels[keep], image)
            else:
                targets[name] = target[cut]
        pixels.append(batch.images[part.start : part.stop][cut])
        parts.append(Part(part.dataset, start, start + n, targets, part.index[cut], n))
        start += n
    return MultiTaskBatch(torch.cat(pixels), parts, batch.step)


def train_one_rank(rank: int, out: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{out}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    for groups in ([NAMES], [(name,) for name in NAMES]):
        model = DistributedDataParallel(Replicated(make(micro_batches_per_round=len(groups))))
        for group in groups:  # no flag for unused parameters; reduction at every micro-batch
            (model(half(draw(group, images=3), rank)) / len(groups)).backward()
        torch.save(gradients(model.module.module), f"{out}/{rank}-{len(groups)}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_have_the_gradient_of_one_rank_that_sees_both_halves(tmp_path):
    mp.get_context("forkserver").set_forkserver_preload([__name__])  # imports once for both
    mp.start_processes(train_one_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    single = make()
    backward(single, draw(NAMES, images=3))
    for groups in (1, len(NAMES)):
        first, second = (torch.load(tmp_path / f"{rank}-{groups}.pt") for rank in (0, 1))
        for name, gradient in gradients(single).items():
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], gradient, rtol=2e-3, atol=2e-5, msg=name)


class Rounds(Dataset):
    """Micro-batches of some datasets each, round after round."""

    def __init__(self, rounds: int, per_batch: int = 1) -> None:
        self.rounds = rounds
        self.groups = [NAMES[i : i + per_batch] for i in range(0, len(NAMES), per_batch)]

    def __len__(self) -> int:
        return self.rounds * len(self.groups)

    def __getitem__(self, index: int) -> MultiTaskBatch:
        number, which = divmod(index, len(self.groups))
        return draw(self.groups[which], images=3, seed=number, step=index)


class Log(pl.loggers.CSVLogger):
    """Keeps rows in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics, step=None) -> None:
        self.rows.append((step, dict(metrics)))


def fit(module: MultiTaskModule, folder: Path, epochs: int = 1, **changes) -> pl.Trainer:
    """Three optimizer steps an epoch, of a round each unless told otherwise."""
    per_batch = -(-len(NAMES) // module.micro_batches_per_round)
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": epochs,
        "accumulate_grad_batches": module.micro_batches_per_round,
        "log_every_n_steps": 1,
        "logger": Log(folder),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **changes,
    }
    trainer = pl.Trainer(**settings)
    loaders = [DataLoader(Rounds(n, per_batch), batch_size=None) for n in (3, 1)]
    trainer.fit(module, *loaders)
    return trainer


def test_every_step_logs_all_tasks_across_its_micro_batches(tmp_path):
    trainer = fit(make(micro_batches_per_round=len(NAMES), stain_strength=0.05), tmp_path)
    losses = [row for _, row in trainer.logger.rows if "train/loss" in row]
    assert len(losses) == 3
    for row in losses:
        assert {f"train/{spec.key}/loss" for spec in SPECS} <= row.keys()
        mean = sum(row[f"train/{spec.key}/loss"] for spec in SPECS) / len(SPECS)
        assert row["train/loss"] == pytest.approx(mean, rel=1e-5)
    scores = trainer.callback_metrics
    assert {"val/organ/class/f1_macro", "val/nuclei/mask/dice", "val/nuclei/box/f1_best"} <= set(
        scores
    )
    assert {"val/grade/score/r2", "val/traits/labels/f1_macro", "val/summary"} <= set(scores)


def test_testing_adds_average_precision(tmp_path):
    module = make()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.test(module, DataLoader(Rounds(1), batch_size=None), verbose=False)
    assert "test/nuclei/box/map" in trainer.callback_metrics


def test_a_checkpoint_holds_plain_containers_and_loads_without_pretrained_weights(tmp_path):
    module = make(micro_batches_per_round=len(NAMES))
    trainer = fit(module, tmp_path)
    path = tmp_path / "run.ckpt"
    trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)  # refuses anything but tensors and containers
    assert saved["hyper_parameters"]["optim"]["schedule"] == "cosine"
    saved["hyper_parameters"]["model"]["weights"] = "nowhere.safetensors"
    torch.save(saved, path)
    again = MultiTaskModule.from_checkpoint(str(path))
    assert again.specs == module.specs
    assert again.optim == module.optim
    for name, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_randomness_on_the_device_depends_only_on_seed_and_step():
    module = make(stain_strength=0.2, color_strength=0.2, blur_probability=0.5)
    images = draw(NAMES).images
    first, dropped = module.prepare_images(images, 7), torch.rand(2)
    torch.rand(100)
    again = module.prepare_images(images, 7)
    assert torch.equal(first, again)
    assert torch.equal(dropped, torch.rand(2))
    assert not torch.equal(first, module.prepare_images(images, 8))
    assert not torch.equal(first, make(stain_strength=0.2, seed=0).eval().prepare_images(images, 7))


def test_prepared_images_are_normalised_and_in_channels_last_memory():
    module = make().eval()
    images = draw(NAMES).images
    x = module.prepare_images(images)
    assert x.is_contiguous(memory_format=torch.channels_last)
    encoder = module.model.encoder
    expected = (images[0, 3, 5] / 255 - torch.tensor(encoder.mean)) / torch.tensor(encoder.std)
    torch.testing.assert_close(x[0, :, 3, 5], expected)


def test_norms_and_biases_are_not_decayed_and_early_stages_learn_slower():
    module = make()
    settings = optim(encoder_lr=1e-3, head_lr=1e-2, weight_decay=0.1, layer_decay=0.5)
    groups = parameter_groups(module.model, settings)
    actual = {id(p): g for g in groups for p in g["params"]}
    named = dict(module.model.named_parameters())
    assert len(actual) == len(named)
    assert all(actual[id(p)]["weight_decay"] == 0 for p in named.values() if p.ndim == 1)
    encoder = "encoder.model."
    assert actual[id(named[encoder + "stages.3.blocks.0.mlp.fc1.weight"])]["weight_decay"] == 0.1
    rates = [
        actual[id(named[f"{encoder}stages.{i}.blocks.0.mlp.fc1.weight"])]["lr"] for i in range(4)
    ]
    assert all(b == pytest.approx(2 * a) for a, b in pairwise(rates))
    assert actual[id(named[encoder + "stem.0.weight"])]["lr"] == pytest.approx(rates[0] / 2)
    assert actual[id(named["heads.organ/class.linear.weight"])]["lr"] == 1e-2


def test_learning_rates_scale_with_the_batch_only_with_a_reference_batch():
    plain = optim(encoder_lr=1e-4, head_lr=1e-3)
    assert scaled(plain, 512) == plain
    large = scaled(optim(encoder_lr=1e-4, head_lr=1e-3, reference_batch=64), 512)
    assert (large.encoder_lr, large.head_lr) == pytest.approx((8e-4, 8e-3))


def test_the_learning_rate_warms_up_linearly_and_ends_at_its_final_fraction():
    factor = schedule(optim(warmup_fraction=0.1, final_fraction=0.01), 100)
    rates = [factor(step) for step in range(100)]
    rises = [b - a for a, b in pairwise(rates[:11])]
    assert rises == pytest.approx([rises[0]] * 10)
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    flat = schedule(optim(schedule=Schedule.constant), 100)
    assert {flat(step) for step in range(10, 100)} == {1.0}


def test_unusable_tasks_are_rejected_with_the_setting_to_change():
    box = Task("box", TaskKind.DETECTION, ("cell",))
    with pytest.raises(ConfigError, match=r"set data\.train\.a\.mpp"):
        TaskSpec("a", box)
    with pytest.raises(ConfigError, match="must name its classes"):
        TaskSpec("a", Task("c", TaskKind.CLASSIFICATION))
    spec = TaskSpec("a", Task("c", TaskKind.CLASSIFICATION, ("x", "y"), weight=0.0))
    with pytest.raises(ConfigError, match="given twice: a/c"):
        MultiTaskModule([spec, spec], tiny_model(), optim(), image_size=SIZE)
    with pytest.raises(ConfigError, match="one must be positive"):
        MultiTaskModule([spec], tiny_model(), optim(), image_size=SIZE)
    with pytest.raises(ConfigError, match=r"high=0\.0 must be above low=1\.0"):
        bad = TaskSpec("a", Task("r", TaskKind.REGRESSION, low=1.0, high=0.0))
        MultiTaskModule([bad], tiny_model(), optim(), image_size=SIZE)
