"""Parameter groups and learning rate of the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from models.config import OptimConfig, Schedule
from models.network.multitask_network import MultiTaskModel


def scaled(config: OptimConfig, batch: int) -> OptimConfig:
    """The settings with learning rates for a batch size; as they are where nothing is asked for.

    Linear scaling: P. Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.1.

    Args:
        config: the settings.
        batch: images per dataset and optimizer step, over all ranks.
    """
    if not config.reference_batch:
        return config
    factor = batch / config.reference_batch
    return replace(
        config,
        encoder_lr=config.encoder_lr * factor,
        head_lr=config.head_lr * factor,
        reference_batch=0,
    )


def parameter_groups(model: MultiTaskModel, config: OptimConfig) -> list[dict[str, Any]]:
    """Groups of one learning rate and one weight decay each.

    Norms, biases and what the encoder's authors exempt are not decayed. With `layer_decay` below
    1 each encoder stage (timm's own division) learns slower than the next by that factor.
    """
    encoder = model.encoder
    stage_of: dict[str, int] = encoder.stages() if config.layer_decay != 1 else {}
    last = max(stage_of.values(), default=0)
    exempt = encoder.no_decay()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for full_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = full_name.removeprefix("encoder.model.")
        rate = config.head_lr
        if name != full_name:
            stages_behind = last - stage_of.get(name, last)
            rate = config.encoder_lr * config.layer_decay**stages_behind
        plain = parameter.ndim <= 1 or name in exempt
        decay = 0.0 if plain else config.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def schedule(config: OptimConfig, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at each optimizer step.

    Linear warm-up, then a cosine down to `final_fraction` at the last step, or constant.

    Args:
        config: the settings.
        steps: optimizer steps of the whole run.
    """
    warmup = round(config.warmup_fraction * steps)
    constant = config.schedule is Schedule.constant
    final = 1.0 if constant else config.final_fraction

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return factor
