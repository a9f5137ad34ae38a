"""Parameter groups and learning rate of the optimiser."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from models.config import OptimConfig, Schedule
from models.network.multitask_network import MultiTaskNetwork


def scaled(config: OptimConfig, batch: float) -> OptimConfig:
    """Scale the learning rates to a batch size, unless `reference_batch` is 0.

    `batch` is the number of images per dataset and optimizer step over all ranks, the mean over
    datasets. Linear scaling: P. Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.1.
    """
    if not config.reference_batch:
        return config
    factor = batch / config.reference_batch
    encoder_lr, head_lr = config.encoder_lr * factor, config.head_lr * factor
    return replace(config, encoder_lr=encoder_lr, head_lr=head_lr, reference_batch=0)


def parameter_groups(network: MultiTaskNetwork, config: OptimConfig) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    Norms, biases and the encoder authors' exemptions are not decayed. With `layer_decay` below 1
    each encoder stage (timm's own division) has a lower rate than the next by that factor.
    """
    encoder = network.encoder
    stage_of: dict[str, int] = encoder.stages() if config.layer_decay != 1 else {}
    last = max(stage_of.values(), default=0)
    exempt = encoder.no_decay()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for full_name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        name = full_name.removeprefix("encoder.model.")
        rate = config.head_lr
        if name != full_name:
            rate = config.encoder_lr * config.layer_decay ** (last - stage_of.get(name, last))
        decay = 0.0 if parameter.ndim <= 1 or name in exempt else config.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def schedule(config: OptimConfig, steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the optimizer step.

    Linear warm-up, then a cosine down to `final_fraction` at the last of `steps` steps, or
    constant.
    """
    warmup = round(config.warmup_fraction * steps)
    final = 1.0 if config.schedule is Schedule.constant else config.final_fraction

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return factor
