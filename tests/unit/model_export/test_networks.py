"""Properties that every family has."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.models.layers import Gate, StackedLinear
from model_export.models.mmoe import MMoE
from model_export.parity import differences, torch_scores
from model_export.training.losses import task_losses
from tests.unit.model_export import networks

every_family = pytest.mark.parametrize("family", networks.FAMILIES)


@every_family
def test_output_shape(family: str) -> None:
    user, item = networks.encoded(3, 7)
    model = networks.build(family)
    logits = networks.logits(model, user, item, np.arange(7) % 3)
    assert logits.shape == (7, 3)
    assert torch.isfinite(logits).all()


@every_family
def test_stages_have_one_width_that_does_not_depend_on_the_rows(family: str) -> None:
    model = networks.build(family)
    widths = set()
    for user_count, item_count in ((1, 1), (3, 5)):
        user, item = networks.encoded(user_count, item_count)
        widths.add(
            model.user_stage(torch.from_numpy(user.ids), torch.from_numpy(user.numbers)).shape[1]
        )
        widths.add(
            model.item_stage(torch.from_numpy(item.ids), torch.from_numpy(item.numbers)).shape[1]
        )
    assert len(widths) == 1


@every_family
@pytest.mark.parametrize("rows", [1, 2, 257])
def test_scores_do_not_depend_on_the_batch(family: str, rows: int) -> None:
    user, item = networks.encoded(5, rows)
    user_row = np.arange(rows, dtype=np.int64) % 5
    model = networks.build(family)
    together = torch_scores(model, user, item, user_row)
    for row in (0, rows // 2, rows - 1):
        alone = torch_scores(
            model,
            user.take(slice(user_row[row], user_row[row] + 1)),
            item.take(slice(row, row + 1)),
            np.zeros(1, np.int64),
        )
        assert differences(model, together[row : row + 1], alone).max() < 2e-6


@every_family
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_permuting_rows_permutes_scores(family: str, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(12))))
    user_order = np.array(data.draw(st.permutations(range(4))))
    user, item = networks.encoded(4, 12)
    user_row = np.arange(12, dtype=np.int64) % 4
    model = networks.build(family)
    expected = torch_scores(model, user, item, user_row)[order]
    moved = np.argsort(user_order)[user_row][order]
    permuted = torch_scores(model, user.take(user_order), item.take(order), moved)
    assert differences(model, expected, permuted).max() < 2e-6


@every_family
def test_gates_sum_to_one_and_leave_out_what_they_may_not_select(family: str) -> None:
    user, item = networks.encoded(3, 9)
    model = networks.build(family)
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    weights: list[torch.Tensor] = []
    for gate in gates:
        gate.register_forward_hook(lambda module, inputs, output: weights.append(output))
    networks.logits(model, user, item, np.arange(9) % 3)
    assert len(weights) == len(gates)
    for gate, weight in zip(gates, weights, strict=True):
        torch.testing.assert_close(weight.sum(dim=-1), torch.ones(weight.shape[:2]))
        if gate.mask is not None:
            assert (weight[:, torch.isinf(gate.mask)] == 0).all()
            assert (weight[:, ~torch.isinf(gate.mask)] > 0).all()


@every_family
def test_the_gradient_reaches_every_expert_gate_and_tower(family: str) -> None:
    user, item = networks.encoded(6, 64)
    model = networks.build(family).train()
    logits = networks.logits(model, user, item, np.arange(64) % 6)
    torch.autograd.backward((logits**2).sum())
    for name, parameter in model.named_parameters():
        if name == "embeddings.weight" or name.startswith("first."):
            continue
        assert parameter.grad is not None, name
        # Stacked tensors hold an expert, gate or task in each row.
        per_network = parameter.grad.flatten(1).abs().sum(dim=1)
        assert (per_network > 0).all(), name
    assert model.first.user.weight.grad is not None
    reached = model.first.user.weight.grad.abs().sum(dim=1) > 0
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    masked = sum(int(torch.isinf(gate.mask).sum()) for gate in gates[:1] if gate.mask is not None)
    assert int((~reached).sum()) == masked


@every_family
def test_a_task_that_is_masked_everywhere_moves_nothing_of_its_own(family: str) -> None:
    user, item = networks.encoded(6, 32)
    model = networks.build(family).train()
    logits = networks.logits(model, user, item, np.arange(32) % 6)
    masks = torch.tensor([True, False, True]).expand(32, 3)
    losses = task_losses(logits, torch.zeros(32, 3), masks, model.is_binary)
    torch.autograd.backward(losses.sum())
    assert losses[1] == 0
    for name, parameter in model.named_parameters():
        if name.startswith("towers."):
            assert parameter.grad is not None
            assert (parameter.grad[1] == 0).all(), name
            assert (parameter.grad[0] != 0).any(), name


@every_family
def test_regression_scores_are_in_the_unit_of_the_label(family: str) -> None:
    user, item = networks.encoded(2, 6)
    user_row = np.arange(6) % 2
    model = networks.build(family)
    with torch.no_grad():
        logits = networks.logits(model, user, item, user_row).numpy()
    scores = torch_scores(model, user, item, user_row)
    np.testing.assert_allclose(scores[:, 2], logits[:, 2] * 20 + 30, rtol=1e-5)
    np.testing.assert_allclose(scores[:, :2], 1 / (1 + np.exp(-logits[:, :2])), rtol=1e-5)
    assert ((scores[:, :2] > 0) & (scores[:, :2] < 1)).all()


@every_family
def test_shared_and_task_parameters_are_all_parameters_and_tasks_do_not_meet_in_their_own(
    family: str,
) -> None:
    user, item = networks.encoded(6, 32)
    model = networks.build(family).train()
    shared, own = model.shared_parameters(), model.task_parameters()
    everything = [id(parameter) for parameter in model.parameters()]
    assert sorted(id(parameter) for parameter in (*shared, *own)) == sorted(everything)
    logits = networks.logits(model, user, item, np.arange(32) % 6)
    torch.autograd.backward(logits[:, 0].sum())
    for parameter in own:
        assert parameter.grad is not None
        assert (parameter.grad[1:] == 0).all()
    assert model.trained == (True, True, True)
    assert not model.extra_losses()


def test_mmoe_is_the_paper_s_equation() -> None:
    """One layer, no tower: y_k = sum_i softmax(W_k x)_i relu(V_i x) . t_k, written out."""
    user, item = networks.encoded(1, 1)
    model = networks.build("mmoe_one_layer", tower_layers=())
    assert isinstance(model, MMoE)
    with torch.no_grad():
        x_user = model.user_inputs(
            torch.from_numpy(user.ids),
            torch.from_numpy(user.numbers),
            model.embeddings.part("user"),
        )
        x_item = model.item_inputs(
            torch.from_numpy(item.ids),
            torch.from_numpy(item.numbers),
            model.embeddings.part("item"),
        )
        x = torch.cat((x_user, x_item), dim=1)[0]
        weight = torch.cat((model.first.user.weight, model.first.item.weight), dim=1)
        first = weight @ x + model.first.item.bias
        experts = torch.relu(first[: 3 * 8].reshape(3, 8))
        tower = model.towers.linears[0]
        assert isinstance(tower, StackedLinear)
        expected = []
        for task in range(3):
            gate = torch.softmax(first[24 + 3 * task : 24 + 3 * (task + 1)], dim=0)
            mixed = torch.stack([gate[expert] * experts[expert] for expert in range(3)]).sum(dim=0)
            expected.append(mixed @ tower.weight[task, 0] + tower.bias[task, 0])
        found = networks.logits(model, user, item, np.zeros(1))
    torch.testing.assert_close(found[0], torch.stack(expected))


def test_ple_task_experts_serve_their_task_alone() -> None:
    """With the shared experts silenced, a task depends on its own experts only, on one level."""
    user, item = networks.encoded(4, 16)
    model = networks.build("cgc").train()
    torch.autograd.backward(networks.logits(model, user, item, np.arange(16) % 4)[:, 0].sum())
    gradient = model.first.item.weight.grad
    assert gradient is not None
    reached = (gradient.abs().sum(dim=1) > 0)[: 7 * 8].reshape(7, 8).any(dim=1)
    # Experts are task 0's two, task 1's two, task 2's two, and the shared one.
    assert reached.tolist() == [True, True, False, False, False, False, True]


def test_the_same_seed_gives_the_same_network() -> None:
    states = [networks.build("ple", seed=seed).state_dict() for seed in (1, 1, 2)]
    same, other = (
        all(torch.equal(first[name], second[name]) for name in first)
        for first, second in pairwise(states)
    )
    assert same
    assert not other
