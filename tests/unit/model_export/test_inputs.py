"""Input layers: one gather for all ids, mean-pooled lists, sides that lack a kind of column."""

from __future__ import annotations

import numpy as np
import torch

from bundle.encoding import Encoded, Encoder, Side, side_layout
from bundle.schema import Categorical, FeatureSchema, IdList, Number
from model_export.models.inputs import EmbeddingTable, SideInputs
from tests.unit.model_export import networks


def _inputs(schema: FeatureSchema, side: Side) -> tuple[EmbeddingTable, SideInputs]:
    table = EmbeddingTable(schema, 4)
    torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(0))
    return table, SideInputs(schema, side, table)


def test_embeddings_are_looked_up_feature_by_feature() -> None:
    user, item = networks.encoded(6, 9)
    sides: tuple[tuple[Side, Encoded], ...] = (("user", user), ("item", item))
    for side, rows in sides:
        table, inputs = _inputs(networks.SCHEMA, side)
        expected = []
        for columns in side_layout(networks.SCHEMA, side).id_columns:
            part = rows.ids[:, columns.start : columns.start + columns.width]
            vectors = table.weight.detach().numpy()[table.starts[columns.table] + part]
            mask = (part != 0)[:, :, None]
            expected.append((vectors * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1))
        found = inputs(torch.from_numpy(rows.ids), torch.from_numpy(rows.numbers), table.part(side))
        np.testing.assert_allclose(
            found.detach().numpy(), np.concatenate([*expected, rows.numbers], axis=1), rtol=1e-5
        )
        assert found.shape[1] == inputs.width


def test_a_side_reads_only_its_part_of_the_table() -> None:
    schema = networks.SCHEMA
    table = EmbeddingTable(schema, 4)
    history = schema.of("item")[0]
    user_start, user_stop = table.ranges["user"]
    item_start, item_stop = table.ranges["item"]
    assert (user_start, item_stop) == (0, len(table.weight))
    assert user_stop - item_start == schema.table_rows(history)
    assert table.starts["item.item_id"] == item_start


def test_an_empty_list_is_zeros() -> None:
    schema = FeatureSchema(
        features=(
            IdList(name="history", entity="user", hash_buckets=5, max_length=3),
            Number(name="price", entity="item"),
        )
    )
    encoder = Encoder(schema, {})
    users = encoder.layouts["user"].pack({"history": [[], None, ["a"]]}, 3)
    encoded = encoder.user(users, encoder.layouts["context"].empty(3))
    table, inputs = _inputs(schema, "user")
    pooled = inputs(
        torch.from_numpy(encoded.ids), torch.from_numpy(encoded.numbers), table.part("user")
    )
    assert (pooled[:2] == 0).all()
    assert (pooled[2] != 0).any()


def test_ids_outside_the_vocabulary_share_one_row_and_never_fail() -> None:
    encoder = Encoder(networks.SCHEMA, networks.VOCABULARIES)
    layout = encoder.layouts["item"]
    rows = encoder.item(layout.pack({"item_id": ["never seen", "nor this", "a", None]}, 4))
    table, inputs = _inputs(networks.SCHEMA, "item")
    vectors = inputs(torch.from_numpy(rows.ids), torch.from_numpy(rows.numbers), table.part("item"))
    torch.testing.assert_close(vectors[0], vectors[1])
    torch.testing.assert_close(vectors[0], vectors[3])
    assert not torch.equal(vectors[0], vectors[2])


def test_a_side_may_lack_ids_or_numbers() -> None:
    schema = FeatureSchema(
        features=(
            Categorical(name="city", entity="user", hash_buckets=3),
            Number(name="price", entity="item"),
        )
    )
    table, user = _inputs(schema, "user")
    _, item = _inputs(schema, "item")
    assert (user.width, item.width) == (4, 1)
    assert user(torch.ones(2, 1, dtype=torch.int32), torch.empty(2, 0), table.part("user")).shape
    numbers = torch.tensor([[1.0], [2.0]])
    ids = torch.empty(2, 0, dtype=torch.int32)
    assert torch.equal(item(ids, numbers, table.part("item")), numbers)
