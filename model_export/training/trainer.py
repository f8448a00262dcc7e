"""The training loop: AdamW on the weighted sum of task losses, with early stopping."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_export.config import Config
from model_export.data.encoded import Batch, EncodedSet
from model_export.models.base import MultiTaskModel
from model_export.training.evaluation import Metrics, evaluate
from model_export.training.losses import task_losses


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training part came to.

    Attributes:
        losses: mean training loss of each task.
        objective: the mean validation AUC of the binary tasks less the RMSE of the regression
            tasks in deviations of their labels; what early stopping maximises.
    """

    number: int
    losses: dict[str, float]
    validation: Metrics
    objective: float


def train(
    model: MultiTaskModel,
    config: Config,
    train_set: EncodedSet,
    validation_set: EncodedSet,
    console: Console,
) -> Iterator[Epoch]:
    """Train, yielding after each epoch; when exhausted, the model has its best weights.

    Args:
        model: changed in place.
        config: its tasks, training options, and the seed of the order of the rows. Dropout draws
            from torch's own generator.
        train_set, validation_set: consecutive periods.
        console: where the progress bar goes.
    """
    options, tasks = config.training, config.tasks
    rng = np.random.default_rng(config.seed)
    served = [task.served() for task in tasks]
    weights = torch.tensor([task.loss_weight for task in tasks])
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    best, best_weights, since_best = -np.inf, _copy(model), 0
    steps = -(-len(train_set) // options.batch_rows)
    decay = torch.optim.lr_scheduler.LinearLR(
        optimiser, start_factor=1.0, end_factor=0.0, total_iters=steps * options.epochs
    )
    with _progress(console) as progress:
        bar = progress.add_task("training", total=steps * options.epochs)
        for number in range(1, options.epochs + 1):
            model.train()
            totals = torch.zeros(len(tasks))
            defined = torch.zeros(len(tasks))
            for rows in _batches(train_set, options.batch_rows, rng):
                batch = train_set.batch(rows)
                losses = _step(model, batch, weights, optimiser)
                decay.step()
                in_batch = batch.masks.sum(dim=0)
                totals += losses * in_batch
                defined += in_batch
                progress.advance(bar)
            means = (totals / defined.clamp(min=1)).tolist()
            validation = evaluate(model, served, validation_set)
            epoch = Epoch(
                number=number,
                losses={task.name: loss for task, loss in zip(tasks, means, strict=True)},
                validation=validation,
                objective=objective(validation, model),
            )
            since_best += 1
            if epoch.objective > best:
                best, best_weights, since_best = epoch.objective, _copy(model), 0
            progress.console.print(_line(epoch), highlight=False, soft_wrap=True)
            yield epoch
            if since_best >= options.patience:
                progress.update(bar, total=steps * number)
                break
    model.load_state_dict(best_weights)


def objective(validation: Metrics, model: MultiTaskModel) -> float:
    """Mean over the tasks that have a value of AUC, or of minus RMSE over the label's deviation."""
    values = []
    for metrics, deviation in zip(validation.values(), model.label_std.tolist(), strict=True):
        auc, rmse = metrics.get("auc"), metrics.get("rmse")
        if auc is not None:
            values.append(auc)
        elif rmse is not None:
            values.append(-rmse / deviation)
    return float(np.mean(values)) if values else 0.0


def _step(
    model: MultiTaskModel, batch: Batch, weights: torch.Tensor, optimiser: torch.optim.Optimizer
) -> torch.Tensor:
    """One step; returns the task losses, float32 [T]."""
    logits = model(
        batch.user_ids,
        batch.user_numbers,
        batch.item_ids,
        batch.item_numbers,
        batch.user_row,
        batch.item_row,
        batch.positions,
    )
    losses = task_losses(logits, model.standardise(batch.labels), batch.masks, model.is_binary)
    optimiser.zero_grad()
    torch.autograd.backward(torch.dot(losses, weights))
    optimiser.step()
    return losses.detach()


def _batches(
    data: EncodedSet, batch_rows: int, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Rows in random order, those of an impression together, so that its user stage runs once."""
    rank = rng.permutation(len(data.users))
    order = np.argsort(rank[data.user_row], kind="stable")
    for start in range(0, len(order), batch_rows):
        yield order[start : start + batch_rows]


def _copy(model: MultiTaskModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _line(epoch: Epoch) -> str:
    shown = (
        f"{task} {name.upper()} {value:.4f}"
        for task, metrics in epoch.validation.items()
        for name, value in metrics.items()
        if name != "gauc" and value is not None
    )
    return f"epoch {epoch.number}, validation: " + ", ".join(shown)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
