"""An encoder that only embeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from datamodules.core.errors import EncoderError, WeightsError
from models.inference.export import described, digest
from models.inference.exported_files import problem_of
from models.inference.pooling import POOLS, Pool, Pooled, check_pool, dense, pooled

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
