"""Weighting methods against closed forms and small examples worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from model_export import weighting
from model_export.weighting import AnyWeighting, Step, Weighting
from model_export.weighting.aligned_mtl import AlignedMTLOptions
from model_export.weighting.cagrad import CAGradOptions
from model_export.weighting.dwa import DWA, DWAOptions
from model_export.weighting.gradnorm import GradNorm, GradNormOptions
from model_export.weighting.imtl_g import IMTLGOptions
from model_export.weighting.mgda import MGDAOptions
from model_export.weighting.pcgrad import PCGradOptions
from model_export.weighting.static import StaticOptions
from model_export.weighting.uncertainty import Uncertainty, UncertaintyOptions

ALL: list[AnyWeighting] = [
    StaticOptions(),
    UncertaintyOptions(method="uncertainty"),
    DWAOptions(method="dwa"),
    GradNormOptions(method="gradnorm"),
    MGDAOptions(method="mgda"),
    PCGradOptions(method="pcgrad"),
    CAGradOptions(method="cagrad"),
    IMTLGOptions(method="imtl_g"),
    AlignedMTLOptions(method="aligned_mtl"),
]
every_method = pytest.mark.parametrize("options", ALL, ids=lambda options: options.method)


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _step(
    losses: torch.Tensor,
    shared: list[nn.Parameter],
    own: list[nn.Parameter] | None = None,
    defined: list[bool] | None = None,
    extra: torch.Tensor | None = None,
) -> Step:
    return Step(
        losses=losses,
        defined=torch.tensor(defined or [True] * len(losses)),
        extra=torch.zeros(()) if extra is None else extra,
        shared=shared,
        own=own or [],
        mean=_same,
    )


def _direction(method: Weighting, gradients: list[list[float]]) -> tuple[list[float], list[float]]:
    """The gradient on a shared parameter whose task gradients are given, and the weights."""
    parameter = nn.Parameter(torch.zeros(len(gradients[0])))
    losses = torch.tensor(gradients) @ parameter + 1.0
    weights = method.backward(_step(losses, [parameter]))
    assert parameter.grad is not None
    return parameter.grad.tolist(), weights.tolist()


def test_mgda_of_two_tasks_is_the_closed_form() -> None:
    """Sener and Koltun, equation 4: a = clip((g2 - g1) . g2 / |g1 - g2|^2, 0, 1)."""
    for first, second in (
        ([1.0, 0.0], [0.0, 2.0]),
        ([1.0, 1.0], [-1.0, 0.5]),
        ([1.0, 0.0], [3.0, 0.1]),  # the first is the shortest of all: a = 1
    ):
        g1, g2 = torch.tensor(first), torch.tensor(second)
        a = float(((g2 - g1) @ g2 / (g1 - g2).square().sum()).clamp(0, 1))
        found, weights = _direction(weighting.build(MGDAOptions(method="mgda"), 2), [first, second])
        assert weights == pytest.approx([a, 1 - a], abs=1e-3)
        assert found == pytest.approx((a * g1 + (1 - a) * g2).tolist(), abs=1e-3)


def test_pcgrad_projects_conflicting_gradients_and_leaves_others() -> None:
    """g1 = (1, 0), g2 = (-1, 1): g1 - (-1/2) g2 = (1/2, 1/2); g2 - (-1) g1 = (0, 1)."""
    method = weighting.build(PCGradOptions(method="pcgrad"), 2)
    found, _ = _direction(method, [[1.0, 0.0], [-1.0, 1.0]])
    assert found == pytest.approx([0.5, 1.5])
    found, weights = _direction(method, [[1.0, 0.0], [1.0, 1.0]])
    assert found == pytest.approx([2.0, 1.0])
    assert weights == [1, 1]


def test_cagrad_stays_in_its_ball_and_serves_the_worst_task_better() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-0.6, 0.4]])
    mean = gradients.mean(dim=0)
    for c in (0.0, 0.3, 0.8):
        method = weighting.build(CAGradOptions(method="cagrad", c=c), 2)
        found = torch.tensor(_direction(method, gradients.tolist())[0])
        assert (found - mean).norm() == pytest.approx(c * float(mean.norm()), abs=1e-3)
        # no direction of the ball is better for the worst task
        angles = torch.linspace(0, 2 * math.pi, 721)
        ball = mean + c * mean.norm() * torch.stack((angles.cos(), angles.sin()), dim=1)
        best = (ball @ gradients.T).min(dim=1).values.max()
        assert (gradients @ found).min() == pytest.approx(float(best), abs=2e-3)


def test_imtl_g_has_equal_projections_on_all_gradients() -> None:
    gradients = torch.tensor([[1.0, 0.0, 0.5], [-0.2, 2.0, 0.0], [0.3, 0.3, 3.0]])
    method = weighting.build(IMTLGOptions(method="imtl_g"), 3)
    found, weights = _direction(method, gradients.tolist())
    projections = gradients @ torch.tensor(found) / gradients.norm(dim=1)
    assert projections.tolist() == pytest.approx([float(projections[0])] * 3, rel=1e-4)
    assert sum(weights) == pytest.approx(1)


def test_aligned_mtl_of_orthogonal_gradients_brings_them_to_the_shortest() -> None:
    """Orthogonal gradients are principal components: both are scaled to length 1, and averaged."""
    method = weighting.build(AlignedMTLOptions(method="aligned_mtl"), 2)
    found, _ = _direction(method, [[1.0, 0.0], [0.0, 5.0]])
    assert found == pytest.approx([0.5, 0.5], rel=1e-4)


def test_dwa_is_the_formula_over_two_epochs() -> None:
    method = DWA(2, DWAOptions(method="dwa", temperature=2.0))
    step = _step(torch.ones(2), [])
    assert method.weights(step).tolist() == [1, 1]
    method.end_epoch(torch.tensor([2.0, 4.0]))
    assert method.weights(step).tolist() == [1, 1]
    method.end_epoch(torch.tensor([1.0, 4.0]))  # rates 1/2 and 1
    first, second = math.exp(0.25), math.exp(0.5)
    expected = [2 * first / (first + second), 2 * second / (first + second)]
    assert method.weights(step).tolist() == pytest.approx(expected)
    method.end_epoch(torch.tensor([1.0, 0.0]))  # a task without a loss stands still: rates 1 and 1
    assert method.weights(step).tolist() == [1, 1]


def test_uncertainty_is_least_where_the_variance_is_the_loss() -> None:
    method = Uncertainty(3)
    parameter = nn.Parameter(torch.ones(1))
    optimiser = torch.optim.Adam(method.parameters(), lr=0.05)
    for _ in range(600):
        optimiser.zero_grad()
        losses = torch.tensor([0.2, 1.0, 7.0]) * parameter
        weights = method.backward(_step(losses, [parameter], defined=[True, True, True]))
        optimiser.step()
    variances = torch.exp(method.objective.log_var)
    assert variances.tolist() == pytest.approx([0.2, 1.0, 7.0], rel=1e-3)
    assert weights.tolist() == pytest.approx([1 / 0.4, 0.5, 1 / 14], rel=1e-3)


def test_uncertainty_leaves_a_task_alone_that_no_row_defines() -> None:
    method = Uncertainty(2)
    parameter = nn.Parameter(torch.ones(1))
    losses = torch.tensor([3.0, 0.0]) * parameter
    weights = method.backward(_step(losses, [parameter], defined=[True, False]))
    assert method.objective.log_var.grad is not None
    assert method.objective.log_var.grad.tolist() == [0.5 - 0.5 * 3.0, 0.0]
    assert weights.tolist() == [0.5, 0.0]


def test_gradnorm_equalises_the_gradient_norms_of_a_toy() -> None:
    """alpha = 0, losses of one form with slopes 1 and 10: equal norms at weights 20/11 and 2/11."""
    method = GradNorm(2, GradNormOptions(method="gradnorm", alpha=0.0, learning_rate=0.01))
    for _ in range(600):
        parameter = nn.Parameter(torch.zeros(1))
        losses = torch.stack((parameter + 1, 10 * parameter + 1)).flatten()
        method.backward(_step(losses, [parameter]))
    assert method.task_weights.tolist() == pytest.approx([20 / 11, 2 / 11], abs=0.03)
    assert method.task_weights.sum() == pytest.approx(2)


def test_gradnorm_gives_more_to_the_task_that_trains_slowly() -> None:
    """Same gradients, but the second task's loss does not fall: r = 4/3 against 2/3."""
    method = GradNorm(2, GradNormOptions(method="gradnorm", alpha=1.0, learning_rate=0.01))
    for offset in (1.0, 0.5):
        parameter = nn.Parameter(torch.zeros(1))
        losses = torch.stack((parameter + offset, parameter + 1.0)).flatten()
        given = method.backward(_step(losses, [parameter]))
        assert given.tolist() == [1, 1]  # the step uses the weights from before
    assert method.first_losses.tolist() == [1.0, 1.0]
    first, second = method.task_weights.tolist()
    assert first < 1 < second


def test_gradnorm_weights_follow_the_hand_worked_first_step() -> None:
    """Norms 1 and 3, mean 2, both rates 1: slopes -1 and +3, Adam's first step is its rate."""
    method = GradNorm(2, GradNormOptions(method="gradnorm", alpha=1.5, learning_rate=0.1))
    parameter = nn.Parameter(torch.zeros(1))
    losses = torch.stack((parameter + 1, 3 * parameter + 1)).flatten()
    method.backward(_step(losses, [parameter]))
    assert method.task_weights.tolist() == pytest.approx([1.1, 0.9], abs=1e-5)


@every_method
def test_own_parameters_follow_their_task_and_extra_losses_are_added(options: AnyWeighting) -> None:
    torch.manual_seed(0)
    shared, own = nn.Parameter(torch.tensor([1.0, -1.0])), nn.Parameter(torch.ones(2))
    losses = torch.stack(((shared * own[0])[0].square(), (shared * own[1]).sum().exp()))
    step = _step(losses, [shared], [own], extra=3 * shared[0])
    weights = weighting.build(options, 2).backward(step)
    assert shared.grad is not None
    assert own.grad is not None
    per_task = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    expected = weights @ per_task + torch.tensor([3.0, 0.0])
    torch.testing.assert_close(shared.grad, expected)
    scaled = options.method in ("static", "uncertainty", "dwa", "gradnorm")
    own_weights = weights if scaled else torch.ones(2)
    torch.testing.assert_close(own.grad, own_weights * torch.tensor([2.0, 0.0]))


@every_method
def test_a_task_that_no_row_defines_has_no_part(options: AnyWeighting) -> None:
    torch.manual_seed(0)
    shared, own = nn.Parameter(torch.tensor([1.0, -1.0])), nn.Parameter(torch.ones(3))
    first, third = (shared[0] * own[0]).square(), 2 * (shared[1] * own[2]).square()
    losses = torch.stack((first, 0 * own[1] * shared.sum(), third))
    step = _step(losses, [shared], [own], defined=[True, False, True])
    weights = weighting.build(options, 3).backward(step)
    assert weights[1] == 0
    assert (weights[[0, 2]] > 0).all()
    assert own.grad is not None
    assert own.grad[1] == 0
    assert (own.grad[[0, 2]] != 0).all()


@every_method
def test_a_method_goes_on_from_its_state(options: AnyWeighting) -> None:
    torch.manual_seed(0)
    gradients = [[1.0, 0.0], [-0.5, 2.0]]

    def run(method: Weighting, steps: int) -> None:
        optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1)), *method.parameters()], lr=0.1)
        for number in range(steps):
            optimiser.zero_grad()
            _direction(method, gradients)
            optimiser.step()
            method.end_epoch(torch.tensor([1.0 / (number + 1), 1.0]))

    straight, before, after = (weighting.build(options, 2) for _ in range(3))
    run(straight, 5)
    run(before, 3)
    after.load_state_dict(before.state_dict())
    run(after, 2)
    if options.method == "dwa":  # what `run` tells it differs by construction; its memory is tested
        assert isinstance(after, DWA)
        assert after.epochs == 5
        return
    assert _direction(after, gradients) == _direction(straight, gradients)
