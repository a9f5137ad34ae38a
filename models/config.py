"""Typed settings of the model and its optimiser: the keys below `model` and `optim`."""

from dataclasses import dataclass
from enum import Enum

from datamodules.core.config_ranges import limited


class Schedule(Enum):
    """Course of the learning rate after the linear warm-up."""

    cosine = "cosine"
    constant = "constant"


@dataclass
class ModelConfig:
    """The shared encoder and the parts after it.

    Attributes:
        encoder: timm model name.
        weights: "imagenet" (timm's own, or the offline package), "random", or a .safetensors
            file of that timm model.
        neck_channels: channels of the shared feature pyramid and decoder.
        drop_path: stochastic depth rate of the encoder; 0 leaves timm's default off.
        freeze_norm: keep the running statistics of the encoder's BatchNorm layers.
        freeze_stages: leave the first n stages of the encoder untrained.
        grad_checkpointing: trade time for memory in the encoder.
        compile: torch.compile the encoder (the batch size is fixed).
        channels_last: memory format of weights and images.
    """

    encoder: str = "convnext_tiny"
    weights: str = "imagenet"
    neck_channels: int = limited(128, 1, 4096)
    drop_path: float = limited(0.0, 0, below=1)
    freeze_norm: bool = False
    freeze_stages: int = limited(0, 0, 1000)
    grad_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = True


@dataclass
class OptimConfig:
    """AdamW with warm-up.

    Attributes:
        encoder_lr: peak learning rate of the encoder.
        head_lr: peak learning rate of neck, decoder and heads.
        reference_batch: images per dataset and optimizer step, over all ranks, for the two rates;
            a run with n times as many multiplies both by n. 0 never scales.
        weight_decay: not applied to norms and biases.
        layer_decay: factor per encoder stage, from the last to the first; 1 turns it off.
        schedule: see `Schedule`.
        warmup_fraction: share of all steps spent warming up linearly.
        final_fraction: learning rate at the end, relative to the peak.
        clip_norm: gradient norm limit; 0 turns it off.
        balancing: how losses are combined: "fixed" (task weights), "uncertainty" (learned factors
            on top of them), or "torchjd:UPGrad" and other aggregators of that package, which
            combine the tasks' gradients (one process, all tasks in one micro-batch).
        ema_decay: decay per step of the averaged weights, which become the result; 0 is off.
        interpolate: share of the trained weights in the exported and probed encoder; the rest are
            the weights that training began with, which keep general features when the datasets are
            small. 1 is off. Checkpoints and scores of the tasks are those of the trained weights.
    """

    encoder_lr: float = limited(1e-4, 0, 100)
    head_lr: float = limited(1e-3, 0, 100)
    reference_batch: int = limited(0, 0)
    weight_decay: float = limited(0.05, 0, 100)
    layer_decay: float = limited(1.0, above=0, at_most=1)
    schedule: Schedule = Schedule.cosine
    warmup_fraction: float = limited(0.1, 0, 1)
    final_fraction: float = limited(0.01, 0, 1)
    clip_norm: float = limited(1.0, 0)
    balancing: str = "fixed"
    ema_decay: float = limited(0.0, 0, below=1)
    interpolate: float = limited(1.0, above=0, at_most=1)
