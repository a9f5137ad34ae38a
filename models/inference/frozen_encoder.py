"""Frozen encoders, whatever they come from: runs, checkpoints, timm, the hub, plain files."""

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
from models.network.encoder import Encoder, build_model
from models.network.weights import from_source, load, read_safetensors

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
        name: how results call it.
        facts: `input_size`, `mean`, `std`, as in encoder.json.
        device: where it computes.

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
        """Compute there from now on."""
        self.device = torch.device(device)
        self.model.to(self.device)
        return self

    @torch.inference_mode()
    def embed(self, images: Tensor, precision: str = "fp32") -> Tensor:
        """Embed images.

        Args:
            images: uint8 (n, height, width, 3).
            precision: "fp32", or "bf16" for mixed precision; features differ between them.

        Returns:
            float32 (n, dim), on the CPU.

        Raises:
            EncoderError: the encoder takes only images of another size.
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
            - a checkpoint of ours (.ckpt): the averaged weights, where training averages them;
            - "<file>.safetensors:<timm name>", weights of that timm model;
            - "imagenet:<timm name>" or "random:<timm name>"; the name may carry a tag of timm's;
            - "hf-hub:<organisation>/<name>" or "local-dir:<folder>", a model in timm's layout.
        image_size: side of the network input in pixels; the encoder's own where None.
        device: where to compute.
        seed: of random weights.

    Raises:
        WeightsError: there is no such encoder, or its weights do not fit or are damaged.
        EncoderError: timm does not know the model.
    """
    text = str(spec)
    source, _, name = text.partition(":")
    if source in ("imagenet", "random") and name:
        return _fresh(name, source, text, image_size, device, seed)
    if source in ("hf-hub", "local-dir") and name:
        return _foreign(text, image_size, device)
    named = re.fullmatch(r"(.+\.safetensors):([\w.]+)", text)
    if named:
        path = Path(named[1])
        return _fresh(named[2], str(path), name_of(path), image_size, device, seed)
    path = Path(spec)
    if path.suffix == ".ckpt" and path.is_file():
        return _checkpointed(path, image_size, device)
    if path.is_dir():
        path = path / WEIGHTS_FILE
    facts_path = path.with_suffix(".json")
    if facts_path.is_file():
        return _exported(path, facts_path, image_size, device)
    if path.is_file() and path.suffix == ".safetensors":
        raise WeightsError(
            f"encoder {spec}: no {facts_path.name} beside it says which timm model it belongs to; "
            f"name the model: {path}:TIMM_NAME"
        )
    hint = f"; did you mean imagenet:{text}?" if timm.is_model(text) else ""
    where = f"no {WEIGHTS_FILE} there" if Path(spec).is_dir() else "nothing there"
    raise WeightsError(f"encoder {spec}: {where}{hint}; give {FORMS}")


def freeze(encoder: Encoder, name: str, device: torch.device | str = "cpu") -> FrozenEncoder:
    """A frozen copy of an encoder as it is now, also in the middle of training."""
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(encoder.name, num_classes=0, **encoder.kwargs)
    model.load_state_dict(encoder.model.state_dict())
    return FrozenEncoder(model, name, facts_of(encoder), device)


def name_of(path: Path) -> str:
    """How results call the encoder behind a path: short, and telling runs apart."""
    # last.ckpt is a link and keeps its name.
    path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    if path.name == WEIGHTS_FILE:
        return path.parent.name
    if path.suffix == ".ckpt" and path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}-{path.stem}"
    return path.stem if path.suffix in (".ckpt", ".safetensors") else path.name


def _checkpointed(path: Path, image_size: int | None, device: torch.device | str) -> FrozenEncoder:
    try:
        encoder = MultiTaskModule.from_checkpoint(str(path)).model.encoder
    except Exception as error:
        # torch reports damage in many ways; the cause is in the message.
        raise WeightsError(f"{path}: not a checkpoint of this project ({error})") from error
    frozen = freeze(encoder, name_of(path), device)
    if image_size is None or image_size == frozen.input_size:
        return frozen
    model, _ = build_model(encoder.name, "random", image_size)
    load(model, encoder.model.state_dict(), str(path))
    return FrozenEncoder(model, frozen.name, {**frozen.facts, "input_size": image_size}, device)


def _exported(
    path: Path, facts_path: Path, image_size: int | None, device: torch.device | str
) -> FrozenEncoder:
    try:
        facts = json.loads(facts_path.read_text())
        name, size = str(facts["timm_name"]), int(facts["input_size"])
        kwargs, announced = dict(facts["model_kwargs"]), str(facts["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{facts_path}: not an encoder's facts ({error}); export again"
        ) from error
    state = read_safetensors(path)
    if digest(state) != announced:
        raise WeightsError(
            f"{path}: the weights are not those that {facts_path.name} describes; copy both files "
            "of one export"
        )
    if image_size is not None and image_size != size:
        model, _ = build_model(name, "random", image_size)
    else:
        model = timm.create_model(name, num_classes=0, **kwargs)
    load(model, state, str(path))
    facts["input_size"] = image_size or size
    return FrozenEncoder(model, name_of(path), facts, device)


def _fresh(
    name: str,
    weights: str,
    label: str,
    image_size: int | None,
    device: torch.device | str,
    seed: int,
) -> FrozenEncoder:
    config = timm.get_pretrained_cfg(name)
    size = image_size or (config.input_size[-1] if config is not None else 224)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, kwargs = build_model(name, weights, size)
    facts = {**_published(model), "timm_name": name, "model_kwargs": kwargs, "input_size": size}
    return FrozenEncoder(model, label, facts, device)


def _foreign(spec: str, image_size: int | None, device: torch.device | str) -> FrozenEncoder:
    """A model that describes itself, in timm's layout."""
    with torch.random.fork_rng(devices=[]):
        model = from_source(spec)
    facts = _published(model)
    return FrozenEncoder(
        model, spec, {**facts, "input_size": image_size or facts["input_size"]}, device
    )


def _published(model: nn.Module) -> dict[str, Any]:
    """What timm says about a model."""
    published: Any = model.pretrained_cfg
    return {
        "timm_name": published["architecture"],
        "input_size": published["input_size"][-1],
        **{key: published[key] for key in ("mean", "std", "interpolation")},
    }
