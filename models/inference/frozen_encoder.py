"""Frozen encoders from any source: runs, checkpoints, timm, the hub, plain weight files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from datamodules.core.errors import EncoderError, WeightsError
from models.inference.export import WEIGHTS_FILE, described, digest, facts_of
from models.inference.exported_files import exported_weights, problem_of, read_export
from models.inference.pooling import POOLS, Pool, Pooled, check_pool, dense, pooled, split_pool
from models.inference.preset_models import build_preset, preset_facts
from models.inference.presets import PRESETS, Preset
from models.module import MultiTaskModule
from models.network.encoder import Encoder
from models.network.weights import build_model, from_source, load, published_config

PRECISIONS = ("fp32", "bf16")


class FrozenEncoder:
    """An encoder that only embeds.

    Args:
        model: timm model without classifier.
        name: name of the encoder in results.
        facts: `input_size`, `mean`, `std`, as in encoder.json; with `rescale`, images of another
            size are scaled to the input size, as a published encoder expects.
        device: device of the computation.
        pool: pooling of tokens; None for the model's own.

    Attributes:
        digest: SHA-256 of its weights.
        identity: SHA-256 of all that its features depend on: weights, layers, how they pool,
            mean and std.

    Raises:
        EncoderError: the facts cannot describe an image, or the model cannot be pooled so.
        WeightsError: weights are not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        facts: Mapping[str, Any],
        device: torch.device | str,
        pool: Pool | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)
        self.name = name
        self.facts = dict(facts)
        problem = problem_of(facts, ("input_size", "mean", "std"))
        if problem:
            raise EncoderError(f"{name}: cannot prepare images for it ({problem})")
        self.input_size = int(facts["input_size"])
        self.mean: tuple[float, ...] = tuple(facts["mean"])
        self.std: tuple[float, ...] = tuple(facts["std"])
        for key, value in model.state_dict().items():
            if not value.isfinite().all():
                raise WeightsError(f"{name}: {key} holds values that are not finite; export again")
        self.digest = digest(model.state_dict())
        text = f"{self.digest}|{self.mean}|{self.std}|{described(model)}"
        self.pool, self.rescale = pool, bool(facts.get("rescale"))
        if pool is not None:
            check_pool(model, pool, name.removesuffix(f"@{pool}"))
            text += f"|pool {pool}"
        if self.rescale:
            text += f"|scaled to {self.input_size}"
        self.identity = hashlib.sha256(text.encode()).hexdigest()
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
            EncoderError: the encoder accepts only images of another size, or does not pool.
        """
        out: Any = self._run(images, precision, self._vectors)
        if not isinstance(out, Tensor) or out.ndim != 2:
            got = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise EncoderError(
                f"{self.name} does not return one vector for each image, but {got} for "
                f"{len(images)}; name it with the pooling that it was trained with, as in "
                f"{self.name}@cls ({', '.join(POOLS)}), or set global_pool in its config.json"
            )
        return out.float().cpu()

    def _vectors(self, x: Tensor) -> Any:
        return self.model(x) if self.pool is None else pooled(self.model, x, self.pool)

    def network(self) -> nn.Module:
        """Return what maps normalised images to vectors, as one module."""
        return self.model if self.pool is None else Pooled(self.model, self.pool).eval()

    @torch.inference_mode()
    def embed_dense(self, images: Tensor, precision: str = "fp32") -> Tensor:
        """Return a map of features of each image, (n, channels, height, width) float32, on the CPU.

        Raises:
            EncoderError: the encoder accepts only images of another size, or has no such map.
        """
        maps = self._run(images, precision, lambda x: dense(self.model, x, self.name))
        return cast(Tensor, maps).float().cpu()

    def _run(self, images: Tensor, precision: str, compute: Callable[[Tensor], Any]) -> Any:
        """Normalise images and compute features of them."""
        if precision not in PRECISIONS:
            raise ValueError(f"precision={precision}: choose one of {', '.join(PRECISIONS)}")
        x = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        side = images.shape[1]
        if self.rescale and side != self.input_size:
            size = [self.input_size] * 2
            x = interpolate(x, size, mode="bicubic", antialias=True).clamp_(0, 1)
        mean, std = (x.new_tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        x = x.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
        mixed = precision == "bf16"
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                return compute(x)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            if side == self.input_size and isinstance(error, RuntimeError):
                raise
            wanted = "" if side == self.input_size else f" was built for {self.input_size} px and"
            size_of = self.input_size if wanted else "<a size that it takes>"
            raise EncoderError(
                f"{self.name}{wanted} cannot embed {side} px images: {error}; "
                f"set data.unseen.<dataset>.input_size={size_of}"
            ) from error


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
