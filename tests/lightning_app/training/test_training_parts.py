"""Settings of model and optimizer have their effect in a real training step."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from datamodules.config import DatasetConfig
from datamodules.core.errors import ConfigError
from datamodules.multitask import MultiTaskDataModule
from datamodules.prepare import prepare
from datamodules.synthetic.forge import forge
from lightning_app.callbacks.monitors import LastEpoch
from lightning_app.config import Config, save_config
from lightning_app.pretrain import assemble, build_module, build_trainer, pretrain
from lightning_app.training.trainer import precision
from models.module import MultiTaskModule
from models.network.encoder import Encoder
from tests.models.test_module import Rounds, fit, make
from tests.support.synthetic_batches import SIZE, SPECS, TASKS, draw, optim, tiny_model

NAMES = tuple(TASKS)


def module_of(**model) -> MultiTaskModule:
    torch.manual_seed(0)
    return MultiTaskModule(SPECS, tiny_model(**model), optim(), image_size=SIZE)


def configured(folder, **optimiser) -> tuple[Config, MultiTaskDataModule]:
    config = Config()
    config.data.train = {"glas": DatasetConfig()}
    config.trainer.epochs = 1
    config.trainer.accelerator = "cpu"
    config.trainer.precision = "32-true"
    config.wandb.mode = "disabled"
    for key, value in optimiser.items():
        setattr(config.optim, key, value)
    return config, MultiTaskDataModule(config.data)


@pytest.mark.parametrize(("limit", "clipped"), [(1e-3, True), (0.0, False)])
def test_gradients_are_clipped_to_the_configured_norm(tmp_path, limit, clipped):
    config, stream = configured(tmp_path, clip_norm=limit)
    trainer = build_trainer(config, tmp_path, stream, [], {"synthetic": True})
    trainer.callbacks = [c for c in trainer.callbacks if "Checkpoint" not in type(c).__name__]
    module, norms = make(), []

    class Watched(torch.optim.AdamW):
        def step(self, closure):
            loss = closure()  # Lightning clips at the end of it
            gradients = [p.grad for g in self.param_groups for p in g["params"]]
            norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
            return loss

    module.configure_optimizers = lambda: Watched(module.parameters())
    trainer.fit(module, DataLoader(Rounds(2, len(NAMES)), batch_size=None))
    assert len(norms) == 2
    assert all((norm <= 1.01e-3) is clipped for norm in norms)


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_and_losses_in_float32(tmp_path):
    module, seen = make(), []
    layer = module.model.encoder.model.stages[0].blocks[0].mlp.fc1
    layer.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    trainer = fit(module, tmp_path, precision="bf16-mixed")
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert {loss.dtype for loss in module.losses.values()} == {torch.float32}
    rows = [row for _, row in trainer.logger.rows if "train/loss" in row]
    assert len(rows) == 3
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
    assert torch.isfinite(trainer.callback_metrics["val/summary"])


@pytest.mark.parametrize(
    ("wanted", "accelerator", "found"),
    [
        ("auto", "cpu", "32-true"),
        ("16-mixed", "cpu", "16-mixed"),
        ("bf16-mixed", "gpu", "bf16-mixed"),
    ],
)
def test_precision_follows_the_device_unless_it_is_set(wanted, accelerator, found):
    config = Config()
    config.trainer.precision, config.trainer.accelerator = wanted, accelerator
    assert precision(config) == found
    config.trainer.precision, config.trainer.accelerator = "auto", "auto"
    assert precision(config) == ("bf16-mixed" if torch.cuda.is_available() else "32-true")


def test_weights_and_images_are_in_the_configured_memory_format():
    for wanted in (True, False):
        module = module_of(channels_last=wanted).eval()
        images = module.prepare_images(draw(NAMES).images)
        stem = module.model.encoder.model.stem[0].weight
        for tensor in (images, stem):
            assert tensor.is_contiguous(memory_format=torch.channels_last) is wanted
            assert tensor.is_contiguous() is not wanted


def test_stochastic_depth_drops_paths_in_training_only():
    images = torch.randn(2, 3, SIZE, SIZE)
    for rate, moves in ((0.0, False), (0.5, True)):
        torch.manual_seed(0)
        settings = tiny_model(encoder="tf_efficientnet_lite0", drop_path=rate, freeze_norm=True)
        encoder = Encoder(settings, SIZE)
        first, second = (encoder(images).embedding for _ in range(2))
        assert torch.equal(first, second) is not moves
        encoder.eval()
        assert torch.equal(encoder(images).embedding, encoder(images).embedding)


@pytest.mark.slow
def test_a_compiled_encoder_is_compiled_once_and_changes_no_result():
    torch._dynamo.reset()
    counter = torch._dynamo.utils.counters
    counter.clear()
    small = "test_resnet"  # timm's own model for tests: compiling takes time by the layer
    plain, compiled = module_of(encoder=small), module_of(encoder=small, compile=True)
    compiled.load_state_dict(plain.state_dict())
    for seed in range(2):
        for module in (plain, compiled):
            module.zero_grad()
            batch = module.on_after_batch_transfer(draw(NAMES, seed=seed), 0)
            module.micro_batch_loss(batch).backward()
        for (name, one), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-2, atol=1e-4, msg=name)
    assert counter["stats"]["unique_graphs"] == 1
    assert not counter["graph_break"]
    assert plain.state_dict().keys() == compiled.state_dict().keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a fused AdamW is for GPUs")
def test_adamw_is_fused_on_a_gpu(tmp_path):
    trainer = fit(make(), tmp_path, accelerator="gpu")
    assert trainer.optimizers[0].defaults["fused"] is True


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Config:
    """Three small forged datasets, in stores."""
    folder = tmp_path_factory.mktemp("prepared")
    config = Config()
    config.data.root, config.data.stores = f"{folder}/published", f"{folder}/stores"
    config.data.forge, config.data.image_size, config.data.workers = 12, SIZE, 0
    config.data.train = {
        name: DatasetConfig(patch_size=SIZE) for name in ("glas", "nct_crc", "pannuke")
    }
    config.model = tiny_model()
    for dataset in MultiTaskDataModule(config.data).datasets.values():
        forge(dataset, 0, config.data.forge)
        prepare(dataset, 1)
    return config


def with_settings(config: Config, **settings) -> Config:
    """Copy a configuration with further dataset settings, given as "dataset__setting"."""
    changed = copy.deepcopy(config)
    for key, value in settings.items():
        name, setting = key.split("__")
        setattr(changed.data.train[name], setting, value)
    return changed


def test_class_weights_reach_the_loss(prepared):
    config = with_settings(prepared, glas__class_weights={"glands": [0.5, 1.5]})
    module = build_module(config, MultiTaskDataModule(config.data))
    assert module.model.heads["glas/glands"].class_weights.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"glas__class_weights": {"gland": [1.0, 1.0]}}, r"class_weights: no task 'gland'.*glands"),
        ({"glas__class_weights": {"glands": [1.0]}}, "1 class weights for 2 classes"),
        ({"glas__class_weights": {"glands": [-1.0, 1.0]}}, "negative"),
        ({"nct_crc__class_weights": {"tissue": [1.0]}}, "only segmentation has class weights"),
    ],
)
def test_class_weights_that_do_not_fit_are_refused(prepared, settings, message):
    config = with_settings(prepared, **settings)
    with pytest.raises(ConfigError, match=message):
        build_module(config, MultiTaskDataModule(config.data))


def test_shares_and_balance_of_a_configuration_reach_the_stream(prepared):
    config = with_settings(
        prepared, glas__batch_size=3, nct_crc__balance="tissue", pannuke__balance="nuclei_detection"
    )
    config.data.size_power = 1.0
    stream = MultiTaskDataModule(config.data)
    plan = stream.plan()
    sizes = dict(zip(stream.datasets, plan.sizes, strict=True))
    shares = dict(zip(stream.datasets, plan.batch_sizes, strict=True))
    assert shares["glas"] == 3
    assert shares["nct_crc"] + shares["pannuke"] == 2 * config.data.batch_size
    larger = max(("nct_crc", "pannuke"), key=sizes.__getitem__)
    assert shares[larger] == max(shares.values())
    labels: list[int] = []
    for number, batch in enumerate(stream.train_dataloader()):
        for part in batch.parts:
            assert len(part) == shares[part.dataset]
            if part.dataset == "nct_crc":
                labels += part.targets["tissue"].tolist()
        if number == 5:
            break
    counts = Counter(labels)
    assert max(counts.values()) - min(counts.values()) <= 1
    with pytest.raises(ConfigError, match=r"glas\.balance.*no classification or detection task"):
        MultiTaskDataModule(with_settings(prepared, glas__balance="glands").data).plan()


@pytest.mark.slow
def test_a_run_resumed_after_its_last_step_scores_and_exports_the_same(prepared, tmp_path):
    config = with_settings(prepared)
    config.out, config.wandb.mode = str(tmp_path), "disabled"
    config.data.val_limit, config.data.batch_size = 4, 2
    config.trainer.epochs, config.trainer.steps_per_epoch = 1, 1
    config.trainer.accelerator, config.trainer.precision = "cpu", "32-true"
    run = assemble(config)
    run.trainer.fit(run.module, datamodule=run.stream)
    # encoder.json holds the digest of the weights; the order in their file's header may vary.
    names = ("final_scores.json", "encoder.json", "MODEL_CARD.md")
    before = {name: (run.folder / name).read_bytes() for name in names}
    for name in names:
        (run.folder / name).unlink()
    again = assemble(config, run.folder)
    again.trainer.fit(
        again.module, datamodule=again.stream, ckpt_path=again.checkpoint, weights_only=True
    )
    assert {name: (run.folder / name).read_bytes() for name in names} == before


@pytest.mark.parametrize(("every", "validated"), [(1, [1, 2, 3]), (2, [2, 3]), (3, [3]), (7, [3])])
def test_the_last_epoch_is_validated_whatever_the_interval_is(tmp_path, every, validated):
    seen = []

    class Seen(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            seen.append(trainer.current_epoch + 1)

    fit(
        make(),
        tmp_path,
        epochs=3,
        callbacks=[LastEpoch(), Seen()],
        check_val_every_n_epoch=every,
    )
    assert seen == validated


def test_learning_rates_scale_with_the_images_that_datasets_really_have_in_a_round(prepared):
    config = with_settings(prepared, glas__batch_size=2, nct_crc__batch_size=4)
    config.data.batch_size, config.optim.reference_batch = 12, 3
    module = build_module(config, MultiTaskDataModule(config.data))
    mean = (2 + 4 + 12) / 3
    assert module.optim.head_lr == pytest.approx(config.optim.head_lr * mean / 3)


@pytest.mark.parametrize(
    ("side", "shares", "per_batch", "changes", "refused"),
    [
        (32, (1, 1, 1), 1, {}, True),
        (32, (1, 4, 4), 2, {}, True),  # the second micro-batch of a round holds one dataset
        (32, (1, 1, 1), 0, {}, False),
        (32, (2, 2, 2), 1, {}, False),
        (64, (1, 1, 1), 1, {}, False),  # maps of 2 x 2 pixels have a variance
        (32, (1, 1, 1), 1, {"freeze_norm": True}, False),
        (32, (1, 1, 1), 1, {"encoder": "test_convnext"}, False),
    ],
)
def test_single_images_for_batchnorm_are_refused_before_training(
    prepared, side, shares, per_batch, changes, refused
):
    names = ("glas", "nct_crc", "pannuke")
    sizes = {f"{name}__batch_size": n for name, n in zip(names, shares, strict=True)}
    config = with_settings(prepared, **sizes)
    config.data.image_size, config.data.tasks_per_batch = side, per_batch
    config.model = tiny_model(**{"encoder": "test_resnet", "freeze_norm": False, **changes})
    stream = MultiTaskDataModule(config.data)
    if refused:
        with pytest.raises(ConfigError, match=r"BatchNorm of test_resnet a single value; set data"):
            build_module(config, stream)
        return
    module = build_module(config, stream)
    before = copy.deepcopy(module.state_dict())
    module.model.encoder.norms_of_one_value()
    assert module.model.encoder.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])  # looking leaves the statistics alone
    module.model.encoder(torch.randn(stream.plan().smallest, 3, side, side))  # as training does


@pytest.mark.slow
def test_without_unseen_datasets_no_baseline_is_needed_and_the_run_ends_with_a_report(
    prepared, tmp_path
):
    config = with_settings(prepared)
    config.out, config.wandb.mode = str(tmp_path), "disabled"
    config.data.val_limit, config.data.batch_size = 4, 2
    config.trainer.epochs, config.trainer.steps_per_epoch = 1, 1
    config.trainer.accelerator, config.trainer.precision = "cpu", "32-true"
    config.probe.baselines = ["weights that do not exist.safetensors:resnet18", "imagenet"]
    folder = pretrain(config)
    assert (folder / "report.html").is_file()
    assert (folder / "encoder.safetensors").is_file()
    assert not (folder / "probes.csv").exists()


@pytest.mark.slow
def test_wandb_offline_without_a_writable_home_fails_no_run(prepared, tmp_path, repository):
    config = with_settings(prepared)
    config.out, config.wandb.mode = str(tmp_path / "runs"), "offline"
    config.data.val_limit, config.data.batch_size = 4, 2
    config.trainer.epochs, config.trainer.steps_per_epoch = 1, 1
    config.trainer.accelerator, config.trainer.precision = "cpu", "32-true"
    config.data.forge = 0
    save_config(config, tmp_path / "c.yaml")
    (tmp_path / "file").write_text("")
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("WANDB", "XDG"))}
    home = str(tmp_path / "file/home")  # not even root can write below a file
    done = subprocess.run(
        [sys.executable, "-m", "lightning_app", "pretrain", "--config", str(tmp_path / "c.yaml")],
        env={**kept, "HOME": home, "PYTHONPATH": str(repository)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    for name in ("encoder.safetensors", "MODEL_CARD.md", "report.html"):
        assert (folder / name).is_file(), name
