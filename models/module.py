"""Training of the shared encoder on many tasks: the LightningModule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules.core.errors import TrainingError
from datamodules.stream.batch import MultiTaskBatch
from models.config import ModelConfig, OptimConfig
from models.distributed import ranks
from models.metrics.task_metrics import TaskMetrics
from models.network.heads import Prediction
from models.network.losses import reduce
from models.network.multitask_network import MultiTaskNetwork
from models.tasks import TaskSpec
from models.training.color_jitter import blur_some, jitter_color
from models.training.loss_weighting import LossWeights, check_training, joint_direction
from models.training.optimizer import parameter_groups, schedule
from models.training.serialization import FOREIGN, from_dict, read_checkpoint, to_dict
from models.training.stain_jitter import jitter_stain
from models.training.step_losses import StepLoss, count_over_ranks, mean_over_ranks


class MultiTaskModule(pl.LightningModule):
    """The encoder with a head for every task, its losses, metrics and optimiser.

    Settings are dataclasses, or the dictionaries of a checkpoint, which loads with `weights_only`.

    Args:
        specs: all tasks of the run.
        model: settings of the network.
        optim: settings of the optimiser.
        image_size: side of the network input in pixels.
        micro_batches_per_round: micro-batches that together hold every task once; the gradient
            of a round is then the same for every number of tasks per micro-batch.
        stain_strength: strength of the HED jitter of training images; 0 turns it off.
        color_strength: of brightness, contrast, saturation and hue; 0 turns it off.
        blur_probability: share of the training images that are blurred.
        seed: seed of everything random on the device.
    """

    mean: Tensor  # of the pixels that the encoder expects, (3, 1, 1)
    std: Tensor

    def __init__(
        self,
        specs: Sequence[TaskSpec | Mapping[str, Any]],
        model: ModelConfig | Mapping[str, Any],
        optim: OptimConfig | Mapping[str, Any],
        image_size: int = 224,
        micro_batches_per_round: int = 1,
        stain_strength: float = 0.0,
        seed: int = 0,
        color_strength: float = 0.0,
        blur_probability: float = 0.0,
    ) -> None:
        super().__init__()
        self.specs = [from_dict(TaskSpec, spec) for spec in specs]
        self.settings = from_dict(ModelConfig, model)
        self.optim = from_dict(OptimConfig, optim)
        self.micro_batches_per_round = micro_batches_per_round
        self.jitter = (color_strength, blur_probability, stain_strength)
        self.seed = seed
        # These are saved, as plain containers: a checkpoint holds no class of this project.
        specs = [to_dict(spec) for spec in self.specs]
        model, optim = to_dict(self.settings), to_dict(self.optim)
        self.save_hyperparameters(logger=False)
        self.model = MultiTaskNetwork(self.specs, self.settings, image_size)
        if self.optim.interpolate < 1:
            self.model.encoder.interpolate(self.optim.interpolate)
        for name in ("mean", "std"):
            of_channels = torch.tensor(getattr(self.model.encoder, name)).view(3, 1, 1)
            self.register_buffer(name, of_channels, persistent=False)
        self.loss_weights = LossWeights(self.specs, self.optim.balancing)
        self.direction = joint_direction(
            self.optim.balancing, micro_batches_per_round, self.settings.compile
        )
        self.scores = torch.nn.ModuleDict(
            {"val": TaskMetrics(self.specs), "test": TaskMetrics(self.specs, final=True)}
        )
        self.losses: dict[str, Tensor] = {}  # of the last micro-batch by task, with their graph
        self.step_losses: list[StepLoss] = []  # of the current optimizer step
        self._unlogged: list[StepLoss] = []

    @classmethod
    def from_checkpoint(cls, path: str) -> MultiTaskModule:
        """Load a checkpoint (else TrainingError) without downloading pretrained weights first."""
        saved = read_checkpoint(Path(path))
        try:
            settings = dict(saved["hyper_parameters"])
            settings["model"] = {**settings["model"], "weights": "random"}
            settings["optim"] = {**settings["optim"], "interpolate": 1.0}
            module = cls(**settings)
            module.load_state_dict(saved["state_dict"])
        except FOREIGN as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise TrainingError(f"{path}: not a checkpoint of this project ({reason})") from error
        return module

    def transfer_batch_to_device(
        self, batch: MultiTaskBatch, device: torch.device, dataloader_idx: int
    ) -> MultiTaskBatch:
        """Copy asynchronously: the loader pinned the memory."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: MultiTaskBatch, dataloader_idx: int) -> MultiTaskBatch:
        """Turn bytes into normalised float images, with stain jitter in training."""
        images = self.prepare_images(batch.images, batch.step)
        return MultiTaskBatch(images, batch.parts, batch.step)

    def prepare_images(self, images: Tensor, step: int = 0) -> Tensor:
        """Turn (n, height, width, 3) uint8 into normalised (n, 3, height, width) float32.

        In training (seed, rank, step) determine everything random on the device, so a resumed
        run repeats exactly.
        """
        x = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        x = x.div_(255)  # channel by channel, as the jitter computes
        if self.training:
            mixed = np.random.SeedSequence([self.seed, self.global_rank, step])
            number = int(mixed.generate_state(1, np.uint64)[0] >> np.uint64(1))
            torch.manual_seed(number)  # dropout and stochastic depth
            x = self._jitter(x, torch.Generator().manual_seed(number))
        x = x.sub_(self.mean).div_(self.std)
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        return x.contiguous(memory_format=layout)

    def _jitter(self, images: Tensor, generator: torch.Generator) -> Tensor:
        color, blur, stain = self.jitter
        if color:
            images = jitter_color(images, color, generator)
        if blur:
            images = blur_some(images, blur, generator)
        return jitter_stain(images, stain, generator) if stain else images

    def training_step(self, batch: MultiTaskBatch, batch_idx: int) -> Tensor:
        """Return the loss of one micro-batch, and log a row where one is due."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.step_losses = []
        loss = self.micro_batch_loss(batch)
        self._log_losses(batch_idx)
        return loss

    def micro_batch_loss(self, batch: MultiTaskBatch) -> Tensor:
        """Return the weighted loss of all tasks of a micro-batch, whose images are prepared.

        It is scaled by the micro-batches per round, so that Lightning's division by the number of
        accumulated micro-batches gives the weighted mean over tasks.
        """
        outputs, anchor = self.model(batch.images, batch.parts)
        tasks = list(self.model.tasks_in(batch.parts))
        terms = {
            spec.key: head.loss(outputs[spec.key], part.targets[spec.task.name])
            for part, spec, head in tasks
        }
        counts = count_over_ranks(terms)
        self.losses = {key: reduce(terms[key], counts[key], ranks()) for key in terms}
        records = [StepLoss(s, part.index, self.losses[s.key].detach()) for part, s, _ in tasks]
        self.step_losses += records
        self._unlogged += records
        total: Tensor = anchor + self.loss_weights(self.losses)
        return total * self.micro_batches_per_round

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backpropagate the weighted mean, or the losses apart for a joint direction."""
        if self.direction is None:
            super().backward(loss, *args, **kwargs)
            return
        losses = self.loss_weights.relative(self.losses)
        self.direction.backward(losses, *self.model.trained_parameters())

    def validation_step(self, batch: MultiTaskBatch, batch_idx: int) -> None:
        """Score the images that count."""
        self._score("val", batch)

    def test_step(self, batch: MultiTaskBatch, batch_idx: int) -> None:
        """Score as in validation, with COCO's average precision for detection."""
        self._score("test", batch)

    def predict_step(self, batch: MultiTaskBatch, batch_idx: int = 0) -> dict[str, Prediction]:
        """Return predictions by task key ("dataset/task")."""
        outputs, _ = self.model(batch.images, batch.parts)
        tasks = self.model.tasks_in(batch.parts)
        return {spec.key: head.predict(outputs[spec.key]) for _, spec, head in tasks}

    def on_validation_epoch_end(self) -> None:
        """Log every metric, and their summary over tasks."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log every metric, and their summary over tasks."""
        self._log_scores("test")

    def _score(self, stage: str, batch: MultiTaskBatch) -> None:
        outputs, _ = self.model(batch.images, batch.parts)
        for part, spec, head in self.model.tasks_in(batch.parts):
            prediction = head.predict(outputs[spec.key][: part.valid])
            target = part.targets[spec.task.name]
            self.scores[stage].update(spec, prediction, target, part.valid)  # type: ignore[operator]

    def _log_losses(self, batch_idx: int) -> None:
        """Log means over the steps since the last row, when a row is due.

        Lightning alone would log only the tasks of the last micro-batch of a step.
        """
        trainer: Any = self.trainer
        closes = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        due = (trainer.global_step + 1) % trainer.log_every_n_steps == 0 or trainer.is_last_batch
        if not (closes and due):
            return
        keys = [spec.key for spec in self.specs]
        means, self._unlogged = mean_over_ranks(self._unlogged, keys, self.device), []
        weights = self.loss_weights.fixed
        total = sum(weights[key] * mean for key, mean in means.items())
        for key, mean in means.items():
            self.log(f"train/{key}/loss", mean)
        for key, weight in self.loss_weights.learned().items():
            self.log(f"balancing/{key}/weight", weight)
        self.log("train/loss", total / (sum(weights[key] for key in means) or 1.0))

    def _log_scores(self, stage: str) -> None:
        scores, summary = self.scores[stage].collect()  # type: ignore[operator]
        # The ranks agree already, but Lightning warns without sync_dist.
        for key, value in scores.items():
            self.log(f"{stage}/{key}", value, sync_dist=True)
        if summary is not None:
            self.log(f"{stage}/summary", summary, sync_dist=True)

    def on_fit_start(self) -> None:
        """Check that the trainer supports the balancing of losses."""
        check_training(self.optim.balancing, self, self.trainer)

    def configure_optimizers(self) -> Any:
        """Return AdamW with linear warm-up, then cosine or constant, per optimizer step."""
        fused = self.device.type == "cuda" and str(self.trainer.precision) != "16-mixed"
        groups = parameter_groups(self.model, self.optim)
        learned = list(self.loss_weights.parameters())
        if learned:
            groups.append({"params": learned, "lr": self.optim.head_lr, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, fused=fused)
        factor = schedule(self.optim, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
