"""A query's feature rows: what it brings, completed by the store; defaults are never silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.encoding import Encoded, Encoder
from bundle.errors import ValueRejected
from bundle.rows import RowLayout, Rows
from bundle.schema import Entity
from service.errors import InvalidRequest
from service.features.source import Fetched
from service.values import Candidates, Degradation, Query, RowCounts


class Inputs:
    """A query's feature rows: those it brings, completed by those of the store.

    Raises:
        InvalidRequest: a feature the model does not know, or a value that does not fit.
    """

    def __init__(self, query: Query, encoder: Encoder) -> None:
        self._encoder = encoder
        self._inline: dict[Entity, Rows | None] = {
            "user": _pack(encoder.layouts["user"], "user.features", _one_row(query.user_features)),
            "context": _pack(encoder.layouts["context"], "context", _one_row(query.context)),
            "item": _pack(
                encoder.layouts["item"],
                "candidates.features",
                query.item_features,
                len(query.item_ids),
            ),
        }
        self._rows: dict[Entity, Rows] = {}
        self._content = np.zeros(0, np.uint64)

    def complete(self, fetched: Fetched, asked_user: bool) -> Degradation:
        """Lay the inline values over the stored rows; say which values are defaults.

        Args:
            asked_user: whether the user's row was asked for.
        """
        layouts = self._encoder.layouts
        context = self._inline["context"]
        if context is None:
            context = layouts["context"].empty(1)
        self._rows = {"user": fetched.users.rows, "context": context, "item": fetched.items.rows}
        whole: dict[Entity, npt.NDArray[np.bool_]] = {
            "user": fetched.users.complete,
            "context": layouts["context"].complete(context),
            "item": fetched.items.complete,
        }
        stored: tuple[Entity, Entity] = ("user", "item")
        for entity in stored:
            if (inline := self._inline[entity]) is not None:
                layouts[entity].overlay(self._rows[entity], inline)
                whole[entity] = layouts[entity].complete(self._rows[entity])
        self._content = fetched.items.content
        if self._inline["item"] is not None:
            self._content = np.zeros_like(self._content)
        found: dict[Entity, npt.NDArray[np.bool_]] = {
            "user": fetched.users.found,
            "item": fetched.items.found,
        }
        if not asked_user:
            del found["user"]
        degraded = Degradation(reasons=fetched.reasons)
        for entity, complete in whole.items():
            if not complete.all():
                in_store = found.get(entity, np.ones(1, bool))
                degraded.features[entity] = RowCounts(
                    missing=int((~in_store & ~complete).sum()), defaulted=int((~complete).sum())
                )
                degraded.reasons.append(f"{entity}_defaulted")
        return degraded

    def encode(self) -> tuple[Encoded, Candidates]:
        """The user side, encoded, and the N items, which are encoded only if they must be."""
        rows = self._rows
        users = self._encoder.user(rows["user"], rows["context"])
        return users, Candidates(rows["item"], self._content)

    def fusion_features(self, keys: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Raw numbers for a formula: item features [N], user and context features [1]."""
        numbers = {}
        for key in keys:
            prefix, _, name = key.partition(".")
            for entity, rows in self._rows.items():
                if entity == prefix:
                    numbers[key] = self._encoder.raw_number(entity, name, rows)
        return numbers

    def sources(self, entity: Entity, store: str) -> dict[str, list[str]]:
        """Where each feature of each row came from: inline, default, or the store's name."""
        layout, rows = self._encoder.layouts[entity], self._rows[entity]
        source = np.where(layout.missing(rows), "default", store)
        inline = self._inline[entity]
        if inline is not None:
            source = np.where(layout.missing(inline), source, "inline")
        return dict(zip(layout.slots, source.T.tolist(), strict=True))


def _one_row(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [value] for name, value in values.items()}


def _pack(
    layout: RowLayout, loc: str, columns: Mapping[str, Sequence[Any]], count: int = 1
) -> Rows | None:
    if not columns:
        return None
    try:
        return layout.pack(columns, count)
    except ValueRejected as error:
        row = f"[{error.row}]" if layout.entity == "item" and error.row is not None else ""
        raise InvalidRequest.at(f"{loc}.{error.feature}{row}", error.reason) from error
