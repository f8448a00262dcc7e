"""Task losses against closed forms."""

from __future__ import annotations

import math

import torch

from model_export.training.losses import task_losses

IS_BINARY = torch.tensor([True, False])


def test_closed_forms_over_defined_rows() -> None:
    logits = torch.tensor([[0.0, 3.0], [2.0, -1.0], [9.0, 9.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    masks = torch.tensor([[True, True], [True, True], [False, False]])
    cross_entropy = (math.log(2) + math.log1p(math.exp(2.0))) / 2
    losses = task_losses(logits, labels, masks, IS_BINARY)
    torch.testing.assert_close(losses, torch.tensor([cross_entropy, (4.0 + 4.0) / 2]))


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    losses = task_losses(logits, torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), IS_BINARY)
    torch.autograd.backward(losses.sum())
    assert losses.tolist() == [1000.0, 0.0]
    assert logits.grad is not None
    assert logits.grad[0, 0] == 1.0


def test_a_masked_row_has_no_part_even_when_it_is_infinite() -> None:
    logits = torch.tensor([[0.0, math.inf], [0.0, 1.0]], requires_grad=True)
    masks = torch.tensor([[True, False], [True, True]])
    losses = task_losses(logits, torch.zeros(2, 2), masks, IS_BINARY)
    torch.autograd.backward(losses.sum())
    assert losses[1] == 1.0
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0.0
