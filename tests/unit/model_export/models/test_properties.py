"""Properties that every architecture has; each is checked for all by the same code."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.models.first_layer import FirstLayerModel
from model_export.models.layers import Gate, GatedExperts
from model_export.parity import differences, torch_scores
from tests.unit.model_export import networks

every_family = pytest.mark.parametrize("family", networks.FAMILIES)
EXTRA_LOSSES = {
    "aitm": {"calibrator"},
    "mmoe_dien": {"interest"},
    "single_task_dien": {"click_interest", "like_interest", "watch_seconds_interest"},
    "snr_aver": {"l0"},
    "snr_trans": {"l0"},
}


@every_family
def test_output_shape(family: str) -> None:
    user, item = networks.encoded(3, 7)
    model = networks.build(family)
    logits = networks.logits(model, user, item, np.arange(7) % 3)
    assert logits.shape == (7, 3)
    assert torch.isfinite(logits).all()
    scores = torch_scores(model, user, item, np.arange(7) % 3)
    assert scores.dtype == np.float32
    assert scores.shape == (7, 3)


@every_family
def test_the_width_of_a_stage_does_not_depend_on_the_rows(family: str) -> None:
    model = networks.build(family)
    widths = set()
    for user_count, item_count in ((1, 1), (3, 5)):
        user, item = networks.encoded(user_count, item_count)
        user_tensor = model.user_stage(torch.from_numpy(user.ids), torch.from_numpy(user.numbers))
        item_tensor = model.item_stage(torch.from_numpy(item.ids), torch.from_numpy(item.numbers))
        assert (len(user_tensor), len(item_tensor)) == (user_count, item_count)
        widths.add((user_tensor.shape[1], item_tensor.shape[1]))
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
    assert bool(gates) == family.startswith(("moe", "mmoe", "cgc", "ple"))
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
def test_the_gradient_reaches_every_network_gate_and_tower(family: str) -> None:
    """Each row of each parameter: an expert, a gate, a task, a unit. A ReLU may be shut in one."""
    user, item = networks.encoded(6, 64)
    reached: dict[str, torch.Tensor] = {}
    for seed in range(4):
        model = networks.build(family, seed=seed)
        logits = networks.logits(model, user, item, np.arange(64) % 6)
        torch.autograd.backward((logits**2).sum())
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            rows = parameter.grad.reshape(len(parameter), -1).any(dim=1)
            reached[name] = rows | reached.get(name, torch.zeros_like(rows))
    for name, rows in reached.items():
        if name.endswith(("embeddings.weight", "position_bias.weight")):
            assert rows.any(), name  # rows are ids and positions, not all of which occur
        elif ".first." in f".{name}" and not name.startswith(("levels.", "history.")):
            network = model.get_submodule(name.rpartition("first.")[0].rstrip("."))
            assert isinstance(network, FirstLayerModel)
            assert int((~rows).sum()) == _masked_gate_logits(network), name
        else:
            assert rows.all(), name


def _masked_gate_logits(network: FirstLayerModel) -> int:
    """How many columns of the first layer are logits of experts that their gate may not select."""
    return sum(
        int(torch.isinf(module.gate.mask).sum())
        for module in network.modules()
        if isinstance(module, GatedExperts)
        and not module.attention
        and module.gate.mask is not None
    )


@every_family
def test_tasks_meet_in_shared_parameters_and_nowhere_else(family: str) -> None:
    user, item = networks.encoded(6, 32)
    model = networks.build(family)
    shared, own = model.shared_parameters(), model.task_parameters()
    everything = sorted(id(parameter) for parameter in model.parameters())
    assert sorted(id(parameter) for parameter in (*shared, *own)) == everything
    logits = networks.logits(model, user, item, np.arange(32) % 6)
    reached: list[list[torch.Tensor]] = []
    for task in range(3):
        gradients = torch.autograd.grad(
            logits[:, task].sum(), (*shared, *own), retain_graph=True, materialize_grads=True
        )
        reached.append([gradient != 0 for gradient in gradients])
    for one, other in combinations(reached, 2):
        meet = [bool((a & b).any()) for a, b in zip(one, other, strict=True)]
        assert not any(meet[len(shared) :])
        assert any(meet) == bool(shared)
    assert bool(shared) == (not family.startswith("single_task"))


@every_family
def test_extra_losses_are_finite_scalars_that_train_something(family: str) -> None:
    user, item = networks.encoded(6, 32)
    model = networks.build(family).train()
    networks.logits(model, user, item, np.arange(32) % 6)
    losses = model.extra_losses()
    assert set(losses) == EXTRA_LOSSES.get(family, set())
    for name, loss in losses.items():
        assert loss.shape == ()
        assert torch.isfinite(loss), name
        gradients = torch.autograd.grad(
            loss, list(model.parameters()), retain_graph=True, materialize_grads=True
        )
        assert any(bool(gradient.any()) for gradient in gradients), name


@every_family
def test_regression_scores_are_in_the_unit_of_the_label(family: str) -> None:
    user, item = networks.encoded(2, 6)
    user_row = np.arange(6) % 2
    model = networks.build(family)
    with torch.no_grad():
        logits = networks.logits(model, user, item, user_row).numpy()
    scores = torch_scores(model, user, item, user_row)
    binary = model.outputs.are_probabilities()
    np.testing.assert_allclose(scores[:, ~binary], logits[:, ~binary] * 20 + 30, rtol=1e-5)
    np.testing.assert_allclose(scores[:, binary], 1 / (1 + np.exp(-logits[:, binary])), rtol=1e-5)
    assert ((scores[:, binary] > 0) & (scores[:, binary] < 1)).all()


@every_family
def test_the_same_seed_gives_the_same_network_and_the_same_training_step(family: str) -> None:
    first, again, other = (_after_a_step(family, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def _after_a_step(family: str, seed: int) -> dict[str, torch.Tensor]:
    user, item = networks.encoded(4, 16)
    model = networks.build(family, seed=seed, dropout=0.3).train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        logits = networks.logits(model, user, item, np.arange(16) % 4, np.arange(16) % 6)
        losses = [(logits**2).mean(), *model.extra_losses().values()]
        torch.autograd.backward(torch.stack(losses).sum())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return model.state_dict()
