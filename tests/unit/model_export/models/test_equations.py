"""The formulas of the papers, written out once more with numpy and held against the networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_export.models.aitm import AITM, Transfer
from model_export.models.attention_gate import AttentionLogits
from model_export.models.cross_stitch import CrossStitch
from model_export.models.esmm import product_logit
from model_export.models.layers import GatedExperts, StackedLinear
from model_export.models.mmoe import MMoE
from tests.unit.model_export import networks

Array = npt.NDArray[Any]
RNG = np.random.default_rng(5)


def _numpy(module: torch.nn.Module, name: str) -> Array:
    found: Array = module.get_parameter(name).detach().numpy()
    return found


def _softmax(x: Array) -> Array:
    result: Array = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
    return result


def _tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


def test_mmoe_equations_6_to_8() -> None:
    """One layer, no tower: y_k = sum_i softmax(W_k x)_i relu(V_i x) . t_k."""
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
        found = networks.logits(model, user, item, np.zeros(1))[0].numpy()
    x = np.concatenate((x_user.numpy(), x_item.numpy()), axis=1)[0]
    weight = np.hstack((_numpy(model, "first.user.weight"), _numpy(model, "first.item.weight")))
    first = weight @ x + _numpy(model, "first.item.bias")
    experts = np.maximum(first[: 3 * 8].reshape(3, 8), 0)
    gates = _softmax(first[24:].reshape(3, 3))
    tower, bias = (_numpy(model, f"towers.linears.0.{name}") for name in ("weight", "bias"))
    expected = [gates[task] @ experts @ tower[task, 0] + bias[task, 0] for task in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_moe_is_mmoe_with_one_gate_for_all() -> None:
    one, many = networks.build_split("moe"), networks.build_split("mmoe")
    copied = one.state_dict()
    for side in ("first.user.weight", "first.item.weight", "first.item.bias"):
        experts, gate = copied[side][:-4], copied[side][-4:]
        copied[side] = torch.cat((experts, gate, gate, gate))
    many.load_state_dict(copied)
    user, item = networks.encoded(2, 8)
    rows = np.arange(8) % 2
    torch.testing.assert_close(
        networks.logits(one, user, item, rows), networks.logits(many, user, item, rows)
    )


def test_ple_of_one_level_is_cgc() -> None:
    cgc = networks.build_split("cgc")
    ple = networks.build_split("ple", task_experts=2, shared_experts=1, levels=((8, 6),))
    renamed = {
        name.replace("experts.", "first_level.", 1) if name.startswith("experts.") else name: tensor
        for name, tensor in cgc.state_dict().items()
    }
    ple.load_state_dict(renamed)
    user, item = networks.encoded(2, 8)
    rows = np.arange(8) % 2
    torch.testing.assert_close(
        networks.logits(cgc, user, item, rows), networks.logits(ple, user, item, rows)
    )


def test_cgc_task_experts_serve_their_task_alone() -> None:
    user, item = networks.encoded(4, 16)
    model = networks.build_split("cgc")
    torch.autograd.backward(networks.logits(model, user, item, np.arange(16) % 4)[:, 0].sum())
    gradient = model.first.item.weight.grad
    assert gradient is not None
    reached = (gradient.abs().sum(dim=1) > 0)[: 7 * 8].reshape(7, 8).any(dim=1)
    # Experts are task 0's two, task 1's two, task 2's two, and the shared one.
    assert reached.tolist() == [True, True, False, False, False, False, True]


def test_attention_gates_compare_a_query_with_what_each_expert_gave() -> None:
    module = AttentionLogits(gates=2, expert_width=6, key_width=5)
    experts = [_tensor(4, 6) for _ in range(3)]
    queries, keys = _numpy(module, "queries"), _numpy(module, "keys")
    with torch.no_grad():
        found = module(experts).numpy()
    for row in range(4):
        for gate in range(2):
            for expert in range(3):
                key = keys @ experts[expert][row].numpy()
                expected = queries[gate] @ key / math.sqrt(5)
                assert found[row, gate, expert] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_attention_gates_take_no_columns_of_the_first_layer() -> None:
    linear = GatedExperts(3, 2, (8, 6), 0.0)
    attention = GatedExperts(3, 2, (8, 6), 0.0, key_width=4)
    assert (linear.first_width, attention.first_width) == (3 * 8 + 6, 3 * 8)


def test_cross_stitch_equation_1() -> None:
    """Two hidden layers, a unit after each, no tower layers."""
    model = networks.build("cross_stitch", tower_layers=())
    assert isinstance(model, CrossStitch)
    first = _tensor(3, 24)
    xs = np.maximum(first.numpy().reshape(3, 3, 8), 0).transpose(1, 0, 2)  # [T, N, H]
    xs = np.einsum("kj,jnh->knh", _numpy(model, "units.0.alpha"), xs)
    weight, bias = (_numpy(model, f"linears.0.{name}") for name in ("weight", "bias"))
    xs = np.maximum(np.einsum("kho,kno->knh", weight, xs) + bias[:, None], 0)
    xs = np.einsum("kj,jnh->knh", _numpy(model, "units.1.alpha"), xs)
    weight, bias = (_numpy(model, f"towers.linears.0.{name}") for name in ("weight", "bias"))
    expected = (np.einsum("kho,kno->knh", weight, xs) + bias[:, None])[:, :, 0].T
    with torch.no_grad():
        np.testing.assert_allclose(model.logits_from_first(first), expected, rtol=1e-4, atol=1e-5)


def test_cross_stitch_units_start_as_mostly_own_combinations() -> None:
    unit = CrossStitch(
        networks.SCHEMA,
        networks.TASKS,
        networks.options("cross_stitch", own_share=0.8),
    ).units[0]
    np.testing.assert_allclose(
        _numpy(unit, "alpha"), [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], rtol=1e-6
    )


@settings(deadline=None)  # a busy machine may take its time
@given(
    a=st.floats(-80, 80, width=32),
    b=st.floats(-80, 80, width=32),
)
def test_the_logit_of_a_product_is_right_and_finite(a: float, b: float) -> None:
    x, y = (torch.tensor([value], requires_grad=True) for value in (a, b))
    found = product_logit(x, y)
    torch.autograd.backward(found.sum())
    assert torch.isfinite(found).all()
    for factor in (x, y):
        assert factor.grad is not None
        assert torch.isfinite(factor.grad).all()
    # 1 - pq computed without cancellation, in extended precision
    p, q = (1 / (1 + np.exp(-np.longdouble(value))) for value in (a, b))
    not_p, not_q = (1 / (1 + np.exp(np.longdouble(value))) for value in (a, b))
    expected = float(np.log(p * q) - np.log(not_p + p * not_q))
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_esmm_multiplies_click_and_conversion() -> None:
    user, item = networks.encoded(3, 20)
    for position_bias in (None, {"positions": 5}):
        model = networks.build("esmm", position_bias=position_bias)
        with torch.no_grad():
            scores = torch.sigmoid(networks.logits(model, user, item, np.arange(20) % 3))
        torch.testing.assert_close(scores[:, 2], scores[:, 0] * scores[:, 1])
        assert model.trained == (True, False, True)


def test_aitm_s_transfer() -> None:
    module = Transfer(4)
    before, own = _tensor(3, 4), _tensor(3, 4)
    layers = {
        name: (_numpy(module, f"{name}.weight"), _numpy(module, f"{name}.bias"))
        for name in ("information", "value", "key", "query")
    }

    def linear(name: str, x: Array) -> Array:
        weight, bias = layers[name]
        result: Array = weight @ x + bias
        return result

    with torch.no_grad():
        found = module(before, own).numpy()
    for row in range(3):
        us = [np.maximum(linear("information", before[row].numpy()), 0), own[row].numpy()]
        scores = np.array([linear("key", u) @ linear("query", u) / math.sqrt(4) for u in us])
        weights = _softmax(scores)
        expected = sum(w * linear("value", u) for w, u in zip(weights, us, strict=True))
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-6)


def test_aitm_s_calibrator_counts_what_a_later_step_is_likelier() -> None:
    model = networks.build("aitm", calibrator_weight=0.5)
    assert isinstance(model, AITM)
    probabilities = torch.tensor([[0.2, 0.6, 0.0], [0.7, 0.1, 0.0]])
    model.train().task_logits(torch.logit(probabilities, eps=1e-6))
    # The third task is a regression: it takes no part. Row 0 exceeds by 0.4, row 1 by nothing.
    assert model.extra_losses()["calibrator"].item() == pytest.approx(0.5 * 0.4 / 2)
    model.eval().task_logits(torch.logit(probabilities, eps=1e-6))
    assert not model.extra_losses()


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_a_later_task_trains_an_earlier_tower_unless_stopped(stop_gradient: bool) -> None:
    user, item = networks.encoded(4, 16)
    model = networks.build("task_chain", stop_gradient=stop_gradient)
    torch.autograd.backward(networks.logits(model, user, item, np.arange(16) % 4)[:, 2].sum())
    for task in range(2):
        gradient = model.get_parameter(f"towers.{task}.linears.0.weight").grad
        assert (gradient is not None and bool(gradient.any())) != stop_gradient
    # Either way the earlier prediction is read: its weight in the last tower is trained.
    last = model.get_parameter("towers.2.linears.0.weight").grad
    assert last is not None
    assert (last[0, :, -2:].abs().sum(dim=0) > 0).all()


def test_single_task_networks_share_nothing() -> None:
    user, item = networks.encoded(4, 16)
    model = networks.build("single_task")
    torch.autograd.backward(networks.logits(model, user, item, np.arange(16) % 4)[:, 1].sum())
    reached = {
        name.split(".")[1]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == {"1"}


def test_stacked_layers_start_with_every_unit_on_for_some_rows_and_off_for_others() -> None:
    """Even for inputs as small as young embeddings: no unit, and no narrow tower, starts dead."""
    torch.manual_seed(0)
    layer = StackedLinear(4, 16, 50)
    bound = (6 / 16) ** 0.5
    assert 0.9 * bound < layer.weight.abs().max() <= bound
    for out in layer([0.01 * torch.randn(512, 16) for _ in range(4)]):
        assert ((out > 0).any(dim=0) & (out < 0).any(dim=0)).all()
