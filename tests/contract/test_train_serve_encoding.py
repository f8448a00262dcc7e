"""Training and serving encode alike: the same raw values give the same arrays, bit for bit.

Training packs whole columns of a data set and encodes them at once. Serving gets values one
request at a time, or reads rows that were packed, sealed, stored and decoded; and its encoder comes
from the published bundle. Both must give the arrays that the network was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bundle import store
from bundle.encoding import Encoded, Encoder, side_layout
from bundle.rows import Rows
from bundle.schema import Entity
from model_export import config, pipeline
from model_export.data import loaders
from model_export.data.encoded import encode
from model_export.data.impressions import Impressions
from model_export.training import run_directory

EXAMPLE = Path(__file__).parents[2] / "examples" / "synthetic.yaml"
IMPRESSIONS = range(0, 60, 3)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the synthetic example, trained for an epoch."""
    loaded = config.load(EXAMPLE)
    options = loaded.training.model_copy(update={"epochs": 1})
    quick = loaded.model_copy(update={"training": options})
    directory = tmp_path_factory.mktemp("contract")
    return pipeline.run(quick, directory / "runs", directory / "models")


@pytest.fixture(scope="module")
def part() -> Impressions:
    """Held-out rows as the loader gives them: training has never seen their values."""
    return next(loaders.load(config.load(EXAMPLE).data).test.chunks())


@pytest.fixture(scope="module")
def trained_on(published: Path, part: Impressions) -> tuple[Encoded, Encoded]:
    """What training's path makes of the rows: users [U] and items [I]."""
    run = run_directory.read(published.parents[2] / "runs" / "synthetic")
    encoded = encode(part, config.load(EXAMPLE).tasks, run.encoder())
    return encoded.users, encoded.items


@pytest.fixture(scope="module")
def encoder(published: Path) -> Encoder:
    """The encoder that a server builds from the bundle."""
    return store.load(published).encoder()


def _values(part: Impressions, encoder: Encoder, entity: Entity, row: int) -> dict[str, list[Any]]:
    names = encoder.layouts[entity].slots
    return {name: [part.column(entity, name)[row]] for name in names}


def _one(part: Impressions, encoder: Encoder, entity: Entity, row: int) -> Rows:
    return encoder.layouts[entity].pack(_values(part, encoder, entity, row), 1)


def _stored(encoder: Encoder, entity: Entity, rows: Rows) -> Rows:
    """Sealed, turned into bytes, and read back in one step, as from a feature store."""
    layout = encoder.layouts[entity]
    blobs: list[bytes | None] = [row.tobytes() for row in layout.seal(rows, written_ms=1)]
    decoded = layout.decode(blobs)
    assert decoded.found.all()
    return decoded.rows


def _same(found: Encoded, expected: Encoded) -> None:
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    assert (found.ids.dtype, found.numbers.dtype) == (expected.ids.dtype, expected.numbers.dtype)


def test_one_request_at_a_time(
    encoder: Encoder, part: Impressions, trained_on: tuple[Encoded, Encoded]
) -> None:
    users, items = trained_on
    for row in IMPRESSIONS:
        found = encoder.user(*(_one(part, encoder, entity, row) for entity in ("user", "context")))
        _same(found, users.take(slice(row, row + 1)))
        _same(encoder.item(_one(part, encoder, "item", row)), items.take(slice(row, row + 1)))


def test_through_stored_rows(
    encoder: Encoder, part: Impressions, trained_on: tuple[Encoded, Encoded]
) -> None:
    users, items = trained_on
    rows = list(IMPRESSIONS)
    stored = {
        entity: _stored(
            encoder, entity, np.concatenate([_one(part, encoder, entity, row) for row in rows])
        )
        for entity in ("user", "context", "item")
    }
    _same(encoder.user(stored["user"], stored["context"]), users.take(rows))
    _same(encoder.item(stored["item"]), items.take(rows))


def test_through_the_bundle_s_own_sample(
    published: Path, encoder: Encoder, trained_on: tuple[Encoded, Encoded]
) -> None:
    """A feature store loaded from the sample answers what training saw for the items."""
    sample = store.load(published).manifest.samples["item"]
    table = pq.read_table(published / sample.file).to_pydict()
    layout = encoder.layouts["item"]
    columns = {name: table[name] for name in layout.slots}
    rows = layout.pack(columns, len(table[sample.key]))
    _same(encoder.item(_stored(encoder, "item", rows)), trained_on[1])


def test_values_that_training_never_saw(published: Path, encoder: Encoder) -> None:
    """Unknown, missing and overlong values get the rows for them, and numbers stay finite."""
    schema = store.load(published).manifest.features
    rows = encoder.layouts["user"].pack(
        {
            "segment": ["no such segment", None],
            "history": [["no such item"] * 50, None],
            "age": [None, 1e30],
        },
        2,
    )
    encoded = encoder.user(rows, encoder.layouts["context"].empty(2))
    for columns in side_layout(schema, "user").id_columns:
        ids = encoded.ids[:, columns.start : columns.start + columns.width]
        assert ids.min() >= 0
        assert ids.max() < schema.table_rows(columns.feature)
    assert np.isfinite(encoded.numbers).all()
    users = encoder.user(_stored(encoder, "user", rows), encoder.layouts["context"].empty(2))
    _same(users, encoded)
