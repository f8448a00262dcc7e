"""DIN and DIEN: their formulas written out with numpy, empty histories, and where they fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from bundle.encoding import Encoded, Encoder
from model_export import config
from model_export.errors import ConfigInvalid
from model_export.models.dien import DIEN, AttentionalGRU
from model_export.models.din import DIN
from model_export.models.first_layer import FirstLayerModel
from model_export.models.history import HistoryEncoder
from tests.unit.model_export import experiments, networks

Array = npt.NDArray[Any]
RNG = np.random.default_rng(7)
HISTORIES = [["a"], ["c", "a", "e", "b"], [], ["unknown", "d"]]
ITEMS = ["a", "b", "unknown"]


def _network(encoder: str) -> tuple[FirstLayerModel, HistoryEncoder]:
    family = {"din": "shared_bottom_din", "dien": "mmoe_dien"}[encoder]
    model = networks.build_split(family)
    assert model.history is not None
    return model, model.history


def _sides() -> tuple[Encoded, Encoded]:
    encoder = Encoder(networks.SCHEMA, networks.VOCABULARIES)
    users, contexts = networks.users(4)
    packed = encoder.layouts["user"].pack(
        {"history": HISTORIES, "age": [20.0] * 4, "city": ["x"] * 4}, 4
    )
    items = encoder.layouts["item"].pack(
        {"item_id": ITEMS, "genres": [[]] * 3, "price": [1.0] * 3, "content": [[0.0] * 3] * 3}, 3
    )
    assert len(packed) == len(users)
    return encoder.user(packed, contexts), encoder.item(items)


def _vectors(model: FirstLayerModel) -> dict[str, Array]:
    """The embedding of each id, from the whole table; ids out of the vocabulary share one."""
    start = model.embeddings.starts["item.item_id"]
    table = model.embeddings.weight.detach().numpy()
    return {"unknown": table[start + 1], **{c: table[start + 2 + n] for n, c in enumerate("abcde")}}


def _interest(model: FirstLayerModel, history: HistoryEncoder, user_row: list[int]) -> Array:
    """Each item against the user of its row."""
    user, item = _sides()
    with torch.no_grad():
        of_user = history.user_stage(torch.from_numpy(user.ids), model.embeddings.part("user"))
        of_item = history.item_stage(torch.from_numpy(item.ids), model.embeddings.part("item"))
        items = of_item[torch.arange(len(user_row)) % 3]
        found: Array = history.interest(of_user, items, torch.tensor(user_row)).numpy()
    return found


def test_din_equation_3() -> None:
    model, din = _network("din")
    assert isinstance(din, DIN)
    vectors, user_row = _vectors(model), [1, 1, 3, 0, 2]
    found = _interest(model, din, user_row)
    parameters = {name: parameter.detach().numpy() for name, parameter in din.named_parameters()}
    for row, user in enumerate(user_row):
        v = vectors[ITEMS[row % 3]]
        expected = np.zeros(4)
        for entry in HISTORIES[user]:
            e = vectors[entry]
            x = parameters["first.weight"] @ np.concatenate((e, v, e - v, e * v))
            x = x + parameters["first.bias"]
            for layer in range(2):
                x = np.where(x > 0, x, parameters[f"activations.{layer}.weight"] * x)
                x = parameters[f"linears.{layer}.weight"] @ x + parameters[f"linears.{layer}.bias"]
            expected += x[0] * e
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-6)
    assert not found[4].any()


def _gru_step(cell: AttentionalGRU, x: Array, state: Array, attention: float) -> Array:
    weight, bias = (parameter.detach().numpy() for parameter in cell.of_input.parameters())
    of_state = cell.of_state.weight.detach().numpy()
    (wu, wr, wh), (uu, ur, uh), (bu, br, bh) = (
        np.split(each, 3) for each in (weight, of_state, bias)
    )
    update = attention / (1 + np.exp(-(wu @ x + uu @ state + bu)))
    reset = 1 / (1 + np.exp(-(wr @ x + ur @ state + br)))
    candidate = np.tanh(wh @ x + reset * (uh @ state) + bh)
    result: Array = (1 - update) * state + update * candidate
    return result


def test_dien_s_extractor_attention_and_evolution() -> None:
    model, dien = _network("dien")
    assert isinstance(dien, DIEN)
    vectors, user_row = _vectors(model), [1, 1, 3, 0, 2]
    found = _interest(model, dien, user_row)
    attention = dien.attention.weight.detach().numpy()
    for row, user in enumerate(user_row):
        state, interests = np.zeros(4), []
        for entry in reversed(HISTORIES[user]):  # most recent first in the row, last in time
            state = _gru_step(dien.extractor, vectors[entry], state, 1.0)
            interests.append(state)
        evolved = np.zeros(4)
        if interests:
            logits = np.array(interests) @ attention @ vectors[ITEMS[row % 3]]
            weights = np.exp(logits) / np.exp(logits).sum()
            for interest, weight in zip(interests, weights, strict=True):
                evolved = _gru_step(dien.evolution, interest, evolved, float(weight))
        np.testing.assert_allclose(found[row], evolved, rtol=1e-4, atol=1e-6)
    assert not found[4].any()


def test_the_cell_is_torch_s_gru_where_attention_is_one() -> None:
    cell, gru = AttentionalGRU(5), nn.GRU(5, 5, batch_first=True)
    with torch.no_grad():
        wu, wr, wh = cell.of_input.weight.chunk(3)
        uu, ur, uh = cell.of_state.weight.chunk(3)
        bu, br, bh = cell.of_input.bias.chunk(3)
        # torch's gates are r, z, n, and its z keeps the old state where our u takes the new one
        weights = {
            "weight_ih_l0": torch.cat((wr, -wu, wh)),
            "weight_hh_l0": torch.cat((ur, -uu, uh)),
            "bias_ih_l0": torch.cat((br, -bu, bh)),
            "bias_hh_l0": torch.zeros(15),
        }
        gru.load_state_dict(weights)
        xs = torch.from_numpy(RNG.normal(size=(3, 6, 5)).astype(np.float32))
        expected, _ = gru(xs)
        inputs, state = cell.inputs(xs), torch.zeros(3, 5)
        for step in range(6):
            state = cell(inputs[:, step], state, torch.ones(3, 1))
            torch.testing.assert_close(state, expected[:, step])


def test_dien_s_auxiliary_loss_tells_the_next_entry_from_a_drawn_one() -> None:
    model, dien = _network("dien")
    assert isinstance(dien, DIEN)
    vectors, (user, _) = _vectors(model), _sides()
    values = np.array([vectors[c] for c in "abcde"])
    dien.train()
    torch.manual_seed(3)
    dien.user_stage(torch.from_numpy(user.ids), model.embeddings.part("user"))
    torch.manual_seed(3)
    drawn = torch.randint(0, 5, (4, 3)).numpy()
    terms = []
    for row, history in enumerate(HISTORIES):
        state, oldest_first, padded = np.zeros(4), history[::-1], 4 - len(history)
        for step, (entry, following) in enumerate(pairwise(oldest_first)):
            state = _gru_step(dien.extractor, vectors[entry], state, 1.0)
            wrong = values[drawn[row, padded + step]]
            right_p, wrong_p = (1 / (1 + np.exp(-state @ e)) for e in (vectors[following], wrong))
            terms.append(-np.log(right_p) - np.log(1 - wrong_p))
    assert len(terms) == 4
    (loss,) = dien.extra_losses().values()
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-5)
    dien.eval()
    assert not dien.extra_losses()


@pytest.mark.parametrize("encoder", ["din", "dien"])
def test_users_without_any_history_are_scored(encoder: str) -> None:
    model, _ = _network(encoder)
    packer = Encoder(networks.SCHEMA, networks.VOCABULARIES)
    columns: dict[str, list[Any]] = {"history": [[], None], "age": [1, 2], "city": ["x", "x"]}
    empty = packer.layouts["user"].pack(columns, 2)
    _, contexts = networks.users(2)
    user, (_, item) = packer.user(empty, contexts), _sides()
    logits = networks.logits(model.train(), user, item, np.array([0, 1, 1]))
    torch.autograd.backward([logits.sum(), *model.extra_losses().values()])
    assert torch.isfinite(logits).all()
    for parameter in model.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("encoder", ["din", "dien"])
def test_the_history_reaches_the_scores_through_the_interest(encoder: str) -> None:
    """With the mean-pooled columns silenced, a different history still gives different logits."""
    model, _ = _network(encoder)
    assert model.first.interest is not None
    user, item = _sides()
    with torch.no_grad():
        model.first.user.weight.zero_()
        logits = networks.logits(model, user, item, np.array([0, 1, 3]))
        other = networks.logits(model, user, item, np.array([1, 0, 1]))
    assert (logits != other).any(dim=1).all()


@pytest.mark.parametrize(
    ("history", "features", "message"),
    [
        ({"encoder": "din", "feature": "seen"}, {}, "no id list user.seen"),
        ({"encoder": "din", "feature": "age"}, {}, "no id list user.age"),
        (
            {"encoder": "dien", "feature": "history"},
            {"history": {"hash_buckets": 9}},
            "user.history must share the vocabulary of a categorical item feature",
        ),
        ({"encoder": "lstm", "feature": "history"}, {}, r"architecture\.mmoe\.history: .*'lstm'"),
        ({"encoder": "din", "feature": "history", "attention_layers": []}, {}, "attention_layers"),
    ],
)
def test_a_history_that_does_not_fit_is_named(
    history: dict[str, Any], features: dict[str, dict[str, Any]], message: str
) -> None:
    content = experiments.tiny()
    content["architecture"]["history"] = history
    for feature in content["features"]:
        if feature["name"] in features:
            del feature["shares"]
            feature.update(features[feature["name"]])
    with pytest.raises(ConfigInvalid, match=message):
        config.parse(content, "tiny")
