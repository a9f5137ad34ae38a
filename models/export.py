"""The trained encoder as plain timm weights, and frozen encoders for probes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from datamodules.errors import EncoderError, WeightsError
from models.encoder import Encoder, build_model
from models.multitask import MultiTaskModule
from models.weights import load, read_safetensors

WEIGHTS_FILE = "encoder.safetensors"
FACTS_FILE = "encoder.json"
PRECISIONS = ("fp32", "bf16")


def export_encoder(
    source: MultiTaskModule | Encoder, folder: Path, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write `encoder.safetensors` and `encoder.json`.

    The weights have the keys of `timm.create_model(name, num_classes=0, **model_kwargs)`. Both
    files are written aside and renamed, the facts last: where they lie, the export is complete.

    Args:
        source: the module after training, or its encoder.
        folder: made where it is missing.
        extra: more facts to keep (datasets, licences, scores); plain containers.

    Returns:
        Path of the weights.
    """
    encoder = source if isinstance(source, Encoder) else source.model.encoder
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in encoder.model.state_dict().items()
    }
    facts = {
        "timm_name": encoder.name,
        "model_kwargs": encoder.kwargs,
        "embedding_dim": encoder.embedding_dim,
        "input_size": encoder.input_size,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "interpolation": encoder.interpolation,
        "digest": digest(state),
        "versions": {"timm": timm.__version__, "torch": torch.__version__},
    }
    path = folder / WEIGHTS_FILE
    aside = path.with_suffix(".tmp")
    save_file(state, aside, metadata={"format": "pt", "timm_name": encoder.name})
    (folder / FACTS_FILE).unlink(missing_ok=True)
    aside.replace(path)
    aside = folder / f"{FACTS_FILE}.tmp"
    aside.write_text(json.dumps({**(extra or {}), **facts}, indent=2, default=str) + "\n")
    aside.replace(folder / FACTS_FILE)
    return path


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights, in order of the names."""
    total = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        total.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
        total.update(value.view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return total.hexdigest()


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
        self.model = model.eval().requires_grad_(False).to(device)
        self.model.to(memory_format=torch.channels_last)
        self.name = name
        self.facts = dict(facts)
        self.input_size = int(facts["input_size"])
        self.mean: tuple[float, ...] = tuple(facts["mean"])
        self.std: tuple[float, ...] = tuple(facts["std"])
        self.device = torch.device(device)
        self.digest = digest(model.state_dict())

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
    timm_name: str | None = None,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> FrozenEncoder:
    """Load an encoder to embed with.

    Args:
        spec: a folder with an export (a run's folder), its encoder.safetensors, any
            .safetensors of a timm model (then with `timm_name`), "imagenet:<timm name>" or
            "random:<timm name>".
        timm_name: the model that a bare .safetensors belongs to.
        image_size: side of the network input in pixels; the export's or the model's own where
            None.
        device: where to compute.
        seed: of random weights.

    Raises:
        WeightsError: there is no such export, or its weights do not fit or are damaged.
        EncoderError: timm does not know the model.
    """
    source, _, name = str(spec).partition(":")
    if source in ("imagenet", "random") and name:
        return _fresh(name, source, str(spec), image_size, device, seed)
    path = Path(spec)
    if path.is_dir():
        path = path / WEIGHTS_FILE
    facts_path = path.with_suffix(".json")
    if facts_path.is_file():
        return _exported(path, facts_path, image_size, device)
    if not path.is_file():
        raise WeightsError(
            f"encoder {spec}: no {WEIGHTS_FILE} there; give a run's folder, a .safetensors file, "
            "imagenet:<timm name> or random:<timm name>"
        )
    if timm_name is None:
        raise WeightsError(
            f"encoder {spec}: no {facts_path.name} beside it says which timm model it belongs to; "
            "put it there or name the model"
        )
    return _fresh(timm_name, str(path), path.stem, image_size, device, seed)


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
    return FrozenEncoder(model, name, facts, device)


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
    published: Any = model.pretrained_cfg
    return FrozenEncoder(
        model,
        label,
        {
            "timm_name": name,
            "model_kwargs": kwargs,
            "input_size": size,
            "mean": published["mean"],
            "std": published["std"],
            "interpolation": published["interpolation"],
        },
        device,
    )
