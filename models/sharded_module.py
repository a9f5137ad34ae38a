"""The module with its weights, gradients and optimiser states spread over the ranks (FSDP)."""

from collections.abc import Iterator
from dataclasses import replace

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from models.module import MultiTaskModule
from models.network.multitask_network import MultiTaskNetwork


class ShardedModule(MultiTaskModule):
    """Shards by block of the encoder, so that a rank holds one whole block at a time.

    The parts outside the blocks (stem, neck, heads) are small and whole during a pass.
    """

    def configure_model(self) -> None:
        """Shard the network; Lightning calls this once the ranks are connected."""
        if self.device_mesh is None:
            raise RuntimeError("sharding needs Lightning's ModelParallelStrategy")
        mesh = self.device_mesh["data_parallel"]
        # Only contiguous weights can be sharded; the images stay in channels-last memory.
        self.model.to(memory_format=torch.contiguous_format)
        for block in blocks(self.model.encoder.model):
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)

    def gather(self) -> None:
        """Replace the sharded network by the whole one, on every rank; all ranks must call it.

        After training a rank can then use it without the others.
        """
        state = {
            key: (value.full_tensor() if isinstance(value, DTensor) else value).cpu()
            for key, value in self.model.state_dict().items()
        }
        settings = replace(self.settings, weights="random", compile=False)
        initial, share = self.model.encoder.initial, self.model.encoder.share
        self.model = MultiTaskNetwork(self.specs, settings, self.hparams["image_size"])
        self.model.encoder.initial, self.model.encoder.share = initial, share
        self.model.load_state_dict(state)
        self.model.to(self.device)


class Gather(Callback):
    """Gathers a sharded module after training. Place it before callbacks that use the result."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather on all ranks, in their last collective call."""
        if isinstance(pl_module, ShardedModule):
            pl_module.gather()


def blocks(encoder: nn.Module) -> Iterator[nn.Module]:
    """Yield the consecutive parts of a timm model, by timm's names; none where they are unknown."""
    for name in ("blocks", "stages", "layers"):
        part = getattr(encoder, name, None)
        if isinstance(part, nn.Sequential | nn.ModuleList):
            yield from part
            return
