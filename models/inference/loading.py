"""Loading frozen encoders: runs, checkpoints, timm, the hub, presets, plain weight files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from models.inference.export import WEIGHTS_FILE, facts_of
from models.inference.exported_files import exported_weights, read_export
from models.inference.frozen_encoder import FrozenEncoder
from models.inference.pooling import Pool, split_pool
from models.inference.preset_models import build_preset, preset_facts
from models.inference.presets import PRESETS, Preset
from models.module import MultiTaskModule
from models.network.encoder import Encoder
from models.network.weights import build_model, from_source, load, published_config


def load_encoder(
    spec: str | Path,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> FrozenEncoder:
    """Load an encoder to embed with.

    Args:
        spec: one of

            - a folder with an export (a run's folder), or its encoder.safetensors;
            - a checkpoint of this project (.ckpt), with the averaged weights if there are any;
            - "<file>.safetensors:<timm name>", weights of that timm model;
            - "imagenet:<timm name>" or "random:<timm name>"; the name may carry a tag of timm's;
            - "hf-hub:<organisation>/<name>" or "local-dir:<folder>", a model in timm's layout;
            - "<preset>", a published encoder of `presets.py`, or "<preset>:<folder>", a local copy
              of its repository; it keeps its own input size.

            Each may end with "@cls", "@mean", "@cls+mean" or "@stages", its pooling.
        image_size: side of the network input in pixels; the encoder's own if None.
        device: device of the computation.
        seed: seed of random weights.

    Raises:
        WeightsError: there is no such encoder, or its weights do not fit or are damaged.
        EncoderError: there is no such timm model.

    Example:
        >>> encoder = load_encoder("random:test_resnet", image_size=64)
        >>> encoder.embed(torch.zeros(2, 64, 64, 3, dtype=torch.uint8)).shape
        torch.Size([2, 96])
    """
    whole_label = str(spec)
    label, pool = (whole_label, None) if Path(spec).exists() else split_pool(whole_label)
    path = Path(label)
    source, _, name = label.partition(":")
    weights_of_model = re.fullmatch(r"(.+\.safetensors):([\w.]+)", label)
    if weights_of_model:
        source, name = weights_of_model.groups()
        label = name_of(Path(source))
    with torch.random.fork_rng(devices=[]):
        if weights_of_model or (name and source in ("imagenet", "random")):
            config = published_config(name)
            size = image_size or (config.input_size[-1] if config is not None else 224)
            torch.manual_seed(seed)
            model, kwargs = build_model(name, source, size)
            facts = {**_published(model), "timm_name": name, "model_kwargs": kwargs}
        elif source in PRESETS and not path.exists():
            preset = PRESETS[source]
            return _load_preset(preset, Path(name) if name else None, pool, device)
        elif name and source in ("hf-hub", "local-dir"):
            model = from_source(label)
            facts = _published(model)
        else:
            checkpoint = path.suffix == ".ckpt" and path.is_file()
            path = path if checkpoint else exported_weights(path)
            label = name_of(path)
            facts, state = _read_checkpoint(path) if checkpoint else read_export(path)
            model = _rebuild(facts, state, str(path), image_size)
    facts["input_size"] = image_size or facts["input_size"]
    return FrozenEncoder(model, f"{label}@{pool}" if pool else label, facts, device, pool)


def _load_preset(
    preset: Preset, folder: Path | None, pool: Pool | None, device: torch.device | str
) -> FrozenEncoder:
    """Load a published encoder; its name tells a pooling that is not the recommended one."""
    model = build_preset(preset, folder)
    name = preset.name if pool in (None, preset.pool) else f"{preset.name}@{pool}"
    return FrozenEncoder(model, name, preset_facts(preset, model), device, pool or preset.pool)


def freeze(encoder: Encoder, name: str, device: torch.device | str = "cpu") -> FrozenEncoder:
    """Return a frozen copy of what the encoder would be exported as now, also in training."""
    facts = facts_of(encoder)
    with torch.random.fork_rng(devices=[]):
        model = _rebuild(facts, encoder.result(), name)
    return FrozenEncoder(model, name, facts, device)


def name_of(path: Path) -> str:
    """Return the name of the encoder at a path in results: short, and different for each run."""
    # last.ckpt is a link and keeps its name.
    path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    if path.name == WEIGHTS_FILE:
        return path.parent.name
    if path.suffix == ".ckpt" and path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}-{path.stem}"
    return path.stem if path.suffix in (".ckpt", ".safetensors") else path.name


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    encoder = MultiTaskModule.from_checkpoint(str(path)).model.encoder
    return facts_of(encoder), encoder.model.state_dict()


def _rebuild(
    facts: Mapping[str, Any],
    state: Mapping[str, Tensor],
    source: str,
    image_size: int | None = None,
) -> nn.Module:
    """Build the timm model of an exported encoder, for another image size where one is given."""
    name = facts["timm_name"]
    if image_size and image_size != facts["input_size"]:
        model, _ = build_model(name, "random", image_size)
    else:
        model = timm.create_model(name, num_classes=0, **facts["model_kwargs"])
    load(model, state, source)
    return model


def _published(model: nn.Module) -> dict[str, Any]:
    """Return timm's facts about a model; a config.json of others may lack them."""
    published: Any = model.pretrained_cfg
    size = published.get("input_size")
    return {
        "timm_name": published.get("architecture", ""),
        "input_size": size[-1] if isinstance(size, tuple | list) and size else size,
        **{key: published.get(key) for key in ("mean", "std", "interpolation")},
    }
