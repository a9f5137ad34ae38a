"""The typed configuration: dataclasses define the keys, YAML and `key=value` set them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamodules.config import DataConfig
from datamodules.core.atomic import write_text
from datamodules.core.config_ranges import NAMES, SEED_MAX, check_limits, limited
from datamodules.core.errors import ConfigError
from evaluation.config import ProbeConfig
from lightning_app.config_text import read_override, read_yaml, reason_of, shorter
from models.config import ModelConfig, OptimConfig


@dataclass
class TrainerConfig:
    """Length, hardware and bookkeeping of a training run.

    Attributes:
        epochs: number of epochs, the unit of validation and of the progress display.
        steps_per_epoch: optimizer steps per epoch; 0 is one pass through the largest dataset.
        rounds_per_step: rounds over all datasets per optimizer step.
        precision: "bf16-mixed", "16-mixed" or "32-true"; "auto" is bf16-mixed on a GPU and 32-true
            on a CPU, few of which compute with bf16 quickly.
        accelerator: "auto", "gpu", "cpu".
        devices: a number, or "auto": all GPUs of the node (one process on a CPU), or the processes
            that torchrun or SLURM started.
        nodes: number of machines; leave it out under torchrun and SLURM.
        strategy: "auto", "ddp", or "fsdp", which shards weights, gradients and optimizer states of
            an encoder too large for one GPU over the ranks.
        sync_batchnorm: share BatchNorm statistics between GPUs.
        log_every: optimizer steps between two rows of the log.
        checkpoint_every: optimizer steps between two checkpoints; 0 is off. Each epoch ends with
            a checkpoint in any case.
        checkpoint_minutes: minutes between two checkpoints; 0 is off.
        non_finite: "stop" ends the run before a non-finite loss or gradient reaches the weights;
            "skip" skips and counts the step.
        val_every: epochs between two validations; the last epoch always validates.
        gradients_every: optimizer steps between two comparisons of the tasks' gradients (see
            `lightning_app.callbacks.gradient_conflicts`); 0 is off.
        panel_every: epochs between two sets of prediction panels (see
            `lightning_app.callbacks.sample_predictions`); 0 draws them at the end only.
    """

    epochs: int = limited(10, 1)
    steps_per_epoch: int = limited(0, 0, 10**9)
    rounds_per_step: int = limited(1, 1, 10_000)
    precision: Literal["auto", "bf16-mixed", "16-mixed", "32-true"] = "auto"
    accelerator: Literal["auto", "gpu", "cpu"] = "auto"
    devices: str = "auto"
    nodes: int = limited(1, 1, 10_000)
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    sync_batchnorm: bool = False
    log_every: int = limited(10, 1, 10**9)
    checkpoint_every: int = limited(0, 0, 10**9)
    checkpoint_minutes: float = limited(15.0, 0)
    non_finite: Literal["stop", "skip"] = "stop"
    val_every: int = limited(1, 1)
    gradients_every: int = limited(50, 0, 10**9)
    panel_every: int = limited(0, 0)


@dataclass
class WandbConfig:
    """The experiment dashboard.

    Attributes:
        mode: "online", "offline", "disabled", or "auto": online if a key is configured, else
            offline.
        project, entity: project and account of the run.
        group: group of the run; None groups runs by verb: pretrain, probe.
        tags: further tags.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "histology-multitask"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class AblationConfig:
    """Trainings without one dataset, or on one alone, on a short schedule.

    Attributes:
        epochs, steps_per_epoch: length of each of these trainings, instead of `trainer`'s.
        seeds: seeds of the trainings; each variant is trained once with each.
        alone: also train on each dataset alone.
    """

    epochs: int = limited(5, 1)
    steps_per_epoch: int = limited(200, 1, 10**9)
    seeds: list[int] = limited((0,), 0, SEED_MAX)
    alone: bool = True


@dataclass
class Config:
    """A run.

    Attributes:
        name: name of the run; its folder is `<out>/<name>-<time>`.
        out: folder of all runs.
        seed: seed of weights, order, augmentation and subsets.
        data: see `DataConfig`.
        model: see `ModelConfig`.
        optim: see `OptimConfig`.
        trainer: see `TrainerConfig`.
        probe: see `ProbeConfig`.
        wandb: see `WandbConfig`.
        loggers: where numbers go; "tensorboard" and "mlflow" need the extra of that name. The
            report draws its training curves from the CSV file.
        ablation: see `AblationConfig`.
    """

    name: str = field(default="pretrain", metadata=NAMES)
    out: str = "runs"
    seed: int = limited(0, 0, SEED_MAX)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    loggers: list[Literal["csv", "wandb", "tensorboard", "mlflow"]] = field(
        default_factory=lambda: ["csv", "wandb"]
    )
    ablation: AblationConfig = field(default_factory=AblationConfig)


def load_config(path: Path | None, overrides: list[str] | None = None) -> Config:
    """Merge schema, file and overrides; later ones take precedence.

    Args:
        path: YAML file; None stands for the defaults of the schema.
        overrides: strings "key.of.a.value=value".

    Raises:
        ConfigError: unreadable file, unknown key, wrong type, value out of range or missing value;
            the message has the full key.
    """
    schema = OmegaConf.structured(Config)
    try:
        merged = OmegaConf.merge(schema, _renamed(read_yaml(path))) if path else schema
        # The config.yaml of a run has both seeds; a change of `seed` takes the other one along.
        follows = merged.data.seed in (schema.data.seed, merged.seed)
    except (OmegaConfBaseException, TypeError) as error:
        raise ConfigError(f"{path}: {reason_of(error)}") from error
    for override in overrides or []:
        follows &= not override.startswith("data.seed=")
        read = _renamed(read_override(override))
        try:
            merged = OmegaConf.merge(merged, read)
        except (OmegaConfBaseException, TypeError) as error:
            raise ConfigError(f"'{shorter(override)}': {reason_of(error)}") from error
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path or 'configuration'}: {reason_of(error)}") from error
    if not isinstance(config, Config):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    check_limits(config)
    if not follows and config.data.seed != config.seed:
        raise ConfigError(
            f"data.seed={config.data.seed}: weights, order and augmentation follow one seed, which "
            f"is seed={config.seed}; set seed={config.data.seed} instead, or leave data.seed out"
        )
    # The same seed determines order and augmentation.
    config.data.seed = config.seed
    return config


def _renamed(read: Any) -> Any:
    """Read the switch `tensorboard`, which configurations had before `loggers`."""
    if read.pop("tensorboard", False) is True:
        read.setdefault("loggers", ["csv", "wandb", "tensorboard"])
    return read


def save_config(config: Config, path: Path) -> None:
    """Write the resolved configuration atomically; `load_config` reads it."""
    write_text(path, to_yaml(config))


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the resolved configuration as plain containers."""
    node = OmegaConf.structured(config)
    plain: Any = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    return dict(plain)
