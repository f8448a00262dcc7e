"""SNR: hard-concrete gates, routing with and without transformation, closed connections."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model_export.models import snr
from model_export.models.snr import SNR, FixedRouting, HardConcrete, Routing
from tests.architectures import ARCHITECTURES
from tests.unit.model_export import networks
from tests.unit.model_export.models.training import trained

Array = npt.NDArray[Any]
RNG = np.random.default_rng(6)


def _numpy(module: torch.nn.Module, name: str) -> Array:
    found: Array = module.get_parameter(name).detach().numpy()
    return found


def _sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-x))
    return result


def _tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


def test_hard_concrete_equations_10_to_13() -> None:
    gates = HardConcrete(2, 3)
    with torch.no_grad():
        gates.log_alpha.copy_(torch.tensor([[-4.0, -1.0, 0.0], [0.5, 2.0, 6.0]]))
    log_alpha = _numpy(gates, "log_alpha").astype(np.float64)
    with torch.no_grad():
        fixed, opened = gates.eval()().numpy(), gates.open().numpy()
        torch.manual_seed(0)
        u = torch.rand(2, 3).numpy().astype(np.float64)
        torch.manual_seed(0)
        sample = gates.train()().numpy()
    np.testing.assert_allclose(fixed, np.clip(_sigmoid(log_alpha) * 1.2 - 0.1, 0, 1), rtol=1e-6)
    assert fixed[0, 0] == 0
    assert fixed[1, 2] == 1
    s = _sigmoid((np.log(u) - np.log(1 - u) + log_alpha) / (2 / 3))
    np.testing.assert_allclose(sample, np.clip(s * 1.2 - 0.1, 0, 1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(opened, _sigmoid(log_alpha - 2 / 3 * math.log(0.1 / 1.1)), rtol=1e-5)


def test_a_connection_is_open_as_often_as_its_probability_says() -> None:
    gates = HardConcrete(1, 4).train()
    with torch.no_grad():
        gates.log_alpha.copy_(torch.tensor([[-3.0, -1.0, 0.0, 2.0]]))
        torch.manual_seed(1)
        often = torch.stack([gates() > 0 for _ in range(4000)]).float().mean(dim=0)
        torch.testing.assert_close(often, gates.open(), atol=0.03, rtol=0)


@pytest.mark.parametrize("transform", [True, False])
def test_a_fixed_routing_gives_what_the_learned_one_gives(transform: bool) -> None:
    routing = Routing(targets=3, sources=4, width=5, transform=transform).eval()
    with torch.no_grad():
        log_alpha = torch.tensor([[9.0, -9, 0.3, -0.2], [-9, -9, 0.1, -9], [-9, -9, -9, -9]])
        routing.gates.log_alpha.copy_(log_alpha)
        fixed = FixedRouting(routing)
        outputs = [_tensor(6, 5) for _ in range(4)]
        assert fixed.sources == [[0, 2, 3], [2], []]
        for found, expected in zip(fixed(outputs), routing(outputs), strict=True):
            torch.testing.assert_close(found, expected)
        assert not fixed(outputs)[2].any()


def test_snr_routes_with_and_without_transformation() -> None:
    outputs = [_tensor(2, 5) for _ in range(3)]
    trans, aver = (Routing(2, 3, 5, transform).eval() for transform in (True, False))
    z = _numpy(trans.gates, "log_alpha")
    z = np.clip(_sigmoid(z) * 1.2 - 0.1, 0, 1)
    weight = _numpy(trans, "weight")
    us = np.stack([output.numpy() for output in outputs])
    with torch.no_grad():
        aver.gates.log_alpha.copy_(trans.gates.log_alpha)
        found = torch.stack(trans(outputs)).numpy()
        np.testing.assert_allclose(found, np.einsum("ij,iojh,jnh->ino", z, weight, us), rtol=1e-4)
        found = torch.stack(aver(outputs)).numpy()
        np.testing.assert_allclose(found, np.einsum("ij,jnh->inh", z, us), rtol=1e-4)


def test_snr_s_l0_term_is_the_expected_number_of_open_connections() -> None:
    model = networks.build("snr_trans", l0_weight=0.01)
    assert isinstance(model, SNR)
    expected = sum(
        _sigmoid(parameter.detach().numpy() - snr.BETA * math.log(-snr.GAMMA / snr.ZETA)).sum()
        for name, parameter in model.named_parameters()
        if name.endswith("log_alpha")
    )
    assert model.extra_losses()["l0"].item() == pytest.approx(0.01 * expected, rel=1e-5)


def test_the_l0_term_closes_connections(tmp_path: Path) -> None:
    opened = []
    for weight in (0.0, 1.0):
        options = {**ARCHITECTURES["snr_trans"], "l0_weight": weight}
        model = trained(options, tmp_path / f"run-{weight}", 32)
        assert isinstance(model, SNR)
        gates = [module for module in model.modules() if isinstance(module, HardConcrete)]
        opened.append(torch.cat([gate.open().flatten() for gate in gates]).mean().item())
    free, penalised = opened
    assert penalised < free - 0.1
