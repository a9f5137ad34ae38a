"""The module with its weights, gradients and optimiser states spread over the ranks (FSDP)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from models.module import MultiTaskModule
from models.network.multitask_network import MultiTaskModel

_BLOCKS = ("blocks", "stages", "layers")
"""What timm calls the parts of an encoder that hold its weights, one after the other."""


class ShardedModule(MultiTaskModule):
    """Shards by block of the encoder, so that a rank holds one block whole at a time.

    What lies outside the blocks (stem, neck, heads) is small and whole during a pass.
    """

    def configure_model(self) -> None:
        """Shard, once the ranks know each other; Lightning calls this."""
        if self.device_mesh is None:
            raise RuntimeError("sharding needs Lightning's ModelParallelStrategy")
        mesh = self.device_mesh["data_parallel"]
        # Only contiguous weights can be cut; the images stay in channels-last memory.
        self.model.to(memory_format=torch.contiguous_format)
        for block in blocks(self.model.encoder.model):
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)

    def gather(self) -> None:
        """Put the whole network in the place of the sharded one, on every rank; all must call it.

        Once training is over a rank can use it without the others.
        """
        state = {
            key: (value.full_tensor() if isinstance(value, DTensor) else value).cpu()
            for key, value in self.model.state_dict().items()
        }
        settings = replace(self.settings, weights="random", compile=False)
        self.model = MultiTaskModel(self.specs, settings, self.hparams["image_size"])
        self.model.load_state_dict(state)
        self.model.to(self.device)


class Gather(Callback):
    """Makes a sharded module whole when training ends. Place it before whoever uses the result."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All ranks, for the last time together."""
        if isinstance(pl_module, ShardedModule):
            pl_module.gather()


def blocks(encoder: nn.Module) -> Iterator[nn.Module]:
    """The parts of a timm model that are called one after the other; none where unknown."""
    for name in _BLOCKS:
        part = getattr(encoder, name, None)
        if isinstance(part, nn.Sequential | nn.ModuleList):
            yield from part
            return
