"""Frozen encoders from any source: runs, checkpoints, timm, the hub, plain weight files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from datamodules.core.errors import EncoderError, WeightsError
from models.inference.export import WEIGHTS_FILE, digest, facts_of
from models.module import MultiTaskModule
from models.network.encoder import Encoder
from models.network.weights import build_model, from_source, load, read_safetensors

PRECISIONS = ("fp32", "bf16")
FORMS = (
    "a run's folder, its .ckpt or .safetensors, FILE.safetensors:TIMM_NAME, imagenet:TIMM_NAME, "
    "random:TIMM_NAME, hf-hub:ORG/NAME or local-dir:FOLDER"
)
"""Every form in which an encoder can be named."""


class FrozenEncoder:
    """An encoder that only embeds.

    Args:
        model: timm model without classifier.
        name: name of the encoder in results.
        facts: `input_size`, `mean`, `std`, as in encoder.json.
        device: device of the computation.

    Attributes:
        digest: SHA-256 of its weights.
    """

    def __init__(
        self, model: nn.Module, name: str, facts: Mapping[str, Any], device: torch.device | str
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)
        self.name = name
        self.facts = dict(facts)
        self.input_size = int(facts["input_size"])
        self.mean: tuple[float, ...] = tuple(facts["mean"])
        self.std: tuple[float, ...] = tuple(facts["std"])
        self.digest = digest(model.state_dict())
        self.to(device)

    def to(self, device: torch.device | str) -> FrozenEncoder:
        """Move the encoder to a device."""
        self.device = torch.device(device)
        self.model.to(self.device)
        return self

    @torch.inference_mode()
    def embed(self, images: Tensor, precision: str = "fp32") -> Tensor:
        """Embed images.

        Args:
            images: (n, height, width, 3) uint8.
            precision: "fp32", or "bf16" for mixed precision; features differ between them.

        Returns:
            (n, dim) float32, on the CPU.

        Raises:
            EncoderError: the encoder accepts only images of another size.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision}: choose one of {', '.join(PRECISIONS)}")
        x = images.to(self.device, non_blocking=True).float().div_(255)
        x = x.sub_(x.new_tensor(self.mean)).div_(x.new_tensor(self.std)).permute(0, 3, 1, 2)
        mixed = precision == "bf16"
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                out: Tensor = self.model(x)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            side = images.shape[1]
            if side == self.input_size:
                raise
            raise EncoderError(
                f"{self.name} was built for {self.input_size} px and cannot embed {side} px "
                f"images: {error}; set data.unseen.<dataset>.input_size={self.input_size}"
            ) from error
        return out.float().cpu()


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
            - "hf-hub:<organisation>/<name>" or "local-dir:<folder>", a model in timm's layout.
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
    label, path = str(spec), Path(spec)
    source, _, name = label.partition(":")
    weights_of_model = re.fullmatch(r"(.+\.safetensors):([\w.]+)", label)
    if weights_of_model:
        source, name = weights_of_model.groups()
        label = name_of(Path(source))
    with torch.random.fork_rng(devices=[]):
        if weights_of_model or (name and source in ("imagenet", "random")):
            config = timm.get_pretrained_cfg(name)
            size = image_size or (config.input_size[-1] if config is not None else 224)
            torch.manual_seed(seed)
            model, kwargs = build_model(name, source, size)
            facts = {**_published(model), "timm_name": name, "model_kwargs": kwargs}
        elif name and source in ("hf-hub", "local-dir"):
            model = from_source(label)
            facts = _published(model)
        else:
            checkpoint = path.suffix == ".ckpt" and path.is_file()
            path = path if checkpoint else _exported_weights(path)
            label = name_of(path)
            facts, state = _read_checkpoint(path) if checkpoint else _read_export(path)
            model = _rebuild(facts, state, str(path), image_size)
    facts["input_size"] = image_size or facts["input_size"]
    return FrozenEncoder(model, label, facts, device)


def freeze(encoder: Encoder, name: str, device: torch.device | str = "cpu") -> FrozenEncoder:
    """Return a frozen copy of an encoder as it is now, also in the middle of training."""
    facts = facts_of(encoder)
    with torch.random.fork_rng(devices=[]):
        model = _rebuild(facts, encoder.model.state_dict(), name)
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


def _exported_weights(path: Path) -> Path:
    """Return the weights file of an export, which has its facts beside it."""
    weights = path / WEIGHTS_FILE if path.is_dir() else path
    if weights.with_suffix(".json").is_file():
        return weights
    if weights.is_file() and weights.suffix == ".safetensors":
        raise WeightsError(
            f"encoder {path}: no {weights.with_suffix('.json').name} beside it names its timm "
            f"model; name the model: {weights}:TIMM_NAME"
        )
    hint = f"; did you mean imagenet:{path}?" if timm.is_model(str(path)) else ""
    where = f"no {WEIGHTS_FILE} there" if path.is_dir() else "nothing there"
    raise WeightsError(f"encoder {path}: {where}{hint}; give {FORMS}")


def _read_export(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    facts_path = path.with_suffix(".json")
    try:
        facts = json.loads(facts_path.read_text())
        *_, expected = (facts[k] for k in ("timm_name", "input_size", "model_kwargs", "digest"))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{facts_path}: not an encoder's facts ({error}); export again"
        ) from error
    state = read_safetensors(path)
    if digest(state) != expected:
        raise WeightsError(
            f"{path}: the weights are not those that {facts_path.name} describes; copy both files "
            "of one export"
        )
    return facts, state


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        encoder = MultiTaskModule.from_checkpoint(str(path)).model.encoder
    except Exception as error:
        # torch reports damage in many ways; the cause is in the message.
        raise WeightsError(f"{path}: not a checkpoint of this project ({error})") from error
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
    """Return timm's facts about a model."""
    published: Any = model.pretrained_cfg
    return {
        "timm_name": published["architecture"],
        "input_size": published["input_size"][-1],
        **{key: published[key] for key in ("mean", "std", "interpolation")},
    }
