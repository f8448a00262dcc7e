"""The training loop: AdamW on the weighted task losses, with early stopping and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model_export import weighting as weightings
from model_export.config import Config
from model_export.data.batches import EncodedRows, TrainingBatch, training_batches
from model_export.models.base import MultiTaskModel
from model_export.training.checkpoint import Checkpoint
from model_export.training.evaluation import Metrics, evaluate
from model_export.training.gate_usage import GateUsage, watched
from model_export.training.objective import Objective, conflict
from model_export.training.processes import Processes
from model_export.weighting import Weighting


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training part came to.

    Attributes:
        losses: mean training loss of each task.
        weights: mean weight that the weighting method gave each task.
        validation: held-out metrics of each task.
        objective: the mean validation AUC of the binary tasks less the RMSE of the regression
            tasks in deviations of their labels; what early stopping maximises.
        gates: mean weights of each gate on the validation part.
        conflict: cosines of the task gradients on the shared parameters, in the first batch.
    """

    number: int
    losses: dict[str, float]
    weights: dict[str, float]
    validation: Metrics
    objective: float
    gates: GateUsage
    conflict: list[list[float]]


def train(
    model: MultiTaskModel,
    config: Config,
    train_rows: EncodedRows,
    validation_rows: EncodedRows,
    console: Console,
    *,
    processes: Processes | None = None,
    checkpoints: Path | None = None,
    resumed: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train, yielding after each epoch; when exhausted, the model has its best weights.

    Args:
        model: changed in place, on its own device.
        config: its tasks, weighting, training options and seed.
        train_rows, validation_rows: the parts.
        console: where the progress bar goes.
        processes: that train together; this one alone by default.
        checkpoints: the directory that a checkpoint is left in after each epoch.
        resumed: the checkpoint to go on from; its epochs are not yielded again.
    """
    loop = _Loop(model, config, train_rows, processes or Processes())
    loop.take_up(resumed)
    options = config.training
    with _progress(console) as progress:
        bar = progress.add_task("training", total=options.epochs, completed=len(loop.epochs))
        while not loop.has_ended():
            number = len(loop.epochs) + 1
            losses, weights, cosines = loop.pass_over(
                number, partial(_advance, progress, bar, float(number - 1))
            )
            epoch = loop.judge(number, losses, weights, cosines, validation_rows)
            loop.note(epoch)
            if checkpoints is not None and loop.processes.is_first:
                loop.checkpoint().save(checkpoints)
            progress.console.print(_line(epoch), highlight=False, soft_wrap=True)
            yield epoch
        progress.update(bar, total=len(loop.epochs))
    model.load_state_dict(loop.best_model)


class _Loop:
    """The state of a training between its epochs."""

    def __init__(
        self, model: MultiTaskModel, config: Config, rows: EncodedRows, processes: Processes
    ) -> None:
        options = config.training
        self.device = next(model.parameters()).device
        self.model, self.config, self.rows, self.processes = model, config, rows, processes
        self.weighting: Weighting = weightings.build(config.weighting, len(config.tasks))
        self.weighting.to(self.device)
        self.forward: nn.Module = model
        if processes.count > 1:
            self.forward = DistributedDataParallel(model)
        self.learnt = [p for p in self.weighting.parameters() if p.requires_grad]
        groups = [{"params": list(model.parameters())}]
        if self.learnt:
            groups.append({"params": self.learnt, "weight_decay": 0.0})  # type: ignore[dict-item]
        self.optimiser = torch.optim.AdamW(
            groups, lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.objective = Objective(
            model, self.forward, config.tasks, processes, self.device, options.precision
        )
        self.epochs: list[dict[str, object]] = []
        self.best, self.best_model, self.since_best = -np.inf, _copy(model), 0

    def take_up(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            return
        self.model.load_state_dict(checkpoint.model)
        self.optimiser.load_state_dict(checkpoint.optimiser)
        self.weighting.load_state_dict(checkpoint.weighting)
        self.epochs = list(checkpoint.epochs)
        self.best, self.since_best = checkpoint.best, checkpoint.since_best
        self.best_model = checkpoint.best_model

    def has_ended(self) -> bool:
        options = self.config.training
        return len(self.epochs) >= options.epochs or self.since_best >= options.patience

    def pass_over(
        self, number: int, report: Callable[[float], None]
    ) -> tuple[torch.Tensor, torch.Tensor, list[list[float]]]:
        """One epoch; returns mean losses [T], mean weights [T] and the first batch's cosines."""
        config, tasks = self.config, self.config.tasks
        self.model.train()
        own_seed = np.random.SeedSequence((config.seed, number, self.processes.rank))
        torch.manual_seed(int(own_seed.generate_state(1)[0]))
        rng = np.random.default_rng((config.seed, number))
        totals, defined, weights = torch.zeros(3, len(tasks), device=self.device)
        cosines: list[list[float]] = []
        steps, behind = 0, float(number - 1)
        for training in training_batches(
            self.rows, tasks, config.training.batch_rows, rng, self.processes.share
        ):
            share_left = 1 - behind / config.training.epochs
            for group in self.optimiser.param_groups:
                group["lr"] = config.training.learning_rate * share_left
            losses, given, found = self._step(training, measure_conflict=not steps)
            cosines = found or cosines
            counts = torch.from_numpy(training.defined).to(self.device)
            totals += losses * counts
            defined += counts
            weights += given
            steps += 1
            behind = number - 1 + training.done
            report(training.done)
        means = totals / defined.clamp(min=1)
        self.weighting.end_epoch(means)
        return means, weights / max(steps, 1), cosines

    def _step(
        self, training: TrainingBatch, measure_conflict: bool
    ) -> tuple[torch.Tensor, torch.Tensor, list[list[float]]]:
        several = isinstance(self.forward, DistributedDataParallel)
        reduces_itself = several and self.weighting.needs_own_reduction
        with self._unsynchronised() if reduces_itself else nullcontext():
            step, losses = self.objective.step(training)
            cosines = conflict(step) if measure_conflict else []
            self.optimiser.zero_grad()
            weights = self.weighting.backward(step)
        if several:
            for parameter in self.learnt:
                assert parameter.grad is not None  # by backward
                parameter.grad = self.processes.mean(parameter.grad)
        self.optimiser.step()
        return self.processes.mean(losses), weights, cosines

    def _unsynchronised(self) -> AbstractContextManager[None]:
        assert isinstance(self.forward, DistributedDataParallel)
        context: AbstractContextManager[None] = self.forward.no_sync()
        return context

    def judge(
        self,
        number: int,
        losses: torch.Tensor,
        weights: torch.Tensor,
        cosines: list[list[float]],
        validation_rows: EncodedRows,
    ) -> Epoch:
        """Evaluate, on the first process; all get the same."""
        epoch = None
        names = [task.name for task in self.config.tasks]
        if self.processes.is_first:
            with watched(self.model) as gates:
                served = [task.served() for task in self.config.tasks]
                validation = evaluate(self.model, served, validation_rows)
            epoch = Epoch(
                number=number,
                losses=dict(zip(names, losses.tolist(), strict=True)),
                weights=dict(zip(names, weights.tolist(), strict=True)),
                validation=validation,
                objective=objective(validation, self.model),
                gates=gates,
                conflict=cosines,
            )
        told = self.processes.from_first(epoch)
        assert told is not None  # the first process has one
        return told

    def note(self, epoch: Epoch) -> None:
        """Keep the record, and the weights if they are the best so far."""
        self.epochs.append(asdict(epoch))
        self.since_best += 1
        if epoch.objective > self.best:
            self.best, self.best_model, self.since_best = epoch.objective, _copy(self.model), 0

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            epochs=self.epochs,
            model=_copy(self.model),
            optimiser=self.optimiser.state_dict(),
            weighting=self.weighting.state_dict(),
            best_model=self.best_model,
            best=self.best,
            since_best=self.since_best,
        )


def objective(validation: Metrics, model: MultiTaskModel) -> float:
    """Mean over the tasks that have a value of AUC, or of minus RMSE over the label's deviation."""
    values = []
    deviations = model.outputs.label_std.tolist()
    for metrics, deviation in zip(validation.values(), deviations, strict=True):
        auc, rmse = metrics.get("auc"), metrics.get("rmse")
        if auc is not None:
            values.append(auc)
        elif rmse is not None:
            values.append(-rmse / deviation)
    return float(np.mean(values)) if values else 0.0


def _copy(model: MultiTaskModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _line(epoch: Epoch) -> str:
    shown = (
        f"{task} {name.upper()} {value:.4f}"
        for task, metrics in epoch.validation.items()
        for name, value in metrics.items()
        if name in ("auc", "rmse") and value is not None
    )
    return f"epoch {epoch.number}, validation: " + ", ".join(shown)


def _advance(progress: Progress, bar: TaskID, behind: float, done: float) -> None:
    progress.update(bar, completed=behind + done)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
    )
