"""A query's feature rows: what it brings, completed by the store; defaults are never silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.encoding import Encoder
from bundle.errors import ValueRejected
from bundle.rows import RowLayout, Rows
from bundle.schema import Entity
from service.errors import FeatureStoreUnavailable, FieldError, InvalidRequest, MissingFeature
from service.features.cache import Outcome
from service.features.source import Fetched
from service.values import Candidates, Degradation, Query, RowCounts, UserSide


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
        self._asked_user = query.user_key is not None
        self.unscorable: npt.NDArray[np.bool_] | None = None
        """bool [N], items without a required feature, if there are any: they get no score."""
        self._content = np.zeros(0, np.uint64)

    def complete(self, fetched: Fetched) -> Degradation:
        """Lay the inline values over the stored rows; say which values are defaults or old.

        Raises:
            MissingFeature: a required feature of the user or context has no value, or one of
                every item.
            FeatureStoreUnavailable: the same, because the store could not be read.
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
        if not self._asked_user:
            del found["user"]
        degraded = Degradation(reasons=fetched.reasons)
        for entity, complete in whole.items():
            if not complete.all():
                in_store = found.get(entity, np.ones(1, bool))
                degraded.features[entity] = RowCounts(
                    missing=int((~in_store & ~complete).sum()), defaulted=int((~complete).sum())
                )
                degraded.reasons.append(f"{entity}_defaulted")
                if layouts[entity].required:
                    self._require(entity, ~complete, fetched, degraded)
        for entity, stale in fetched.stale.items():
            degraded.features.setdefault(entity, RowCounts()).stale = stale
        return degraded

    def _require(
        self,
        entity: Entity,
        incomplete: npt.NDArray[np.bool_],
        fetched: Fetched,
        degraded: Degradation,
    ) -> None:
        """See to rows that lack a required feature."""
        layout = self._encoder.layouts[entity]
        is_required = np.array([name in layout.required for name in layout.slots], bool)
        lacking = layout.missing(self._rows[entity]) & is_required
        without = lacking.any(axis=1)
        if entity == "item" and not without.all():
            if without.any():
                self.unscorable = without
                degraded.reasons.append("item_required_missing")
            return
        if not without.any():
            return
        row = int(np.argmax(without))
        names = [name for name, gone in zip(layout.slots, lacking[row], strict=True) if gone]
        about = "of every candidate " if entity == "item" else ""
        rows = {"user": fetched.users if self._asked_user else None, "item": fetched.items}
        stored = rows.get(entity)
        if stored is not None and stored.outcome[row] == Outcome.UNREAD:
            raise FeatureStoreUnavailable(
                f"{fetched.failure}: {entity}.{names[0]} {about}is required and could not be "
                "read; ask again, or send it"
            )
        loc = {"user": "user.features", "item": "candidates.features"}.get(entity, entity)
        raise MissingFeature(
            [
                FieldError(f"{loc}.{name}", f"{about}required; neither sent nor in the store")
                for name in names
            ]
        )

    @property
    def rows(self) -> Mapping[Entity, Rows]:
        """The completed rows, as they are encoded: one user, one context, N items."""
        return self._rows

    def sides(self) -> tuple[UserSide, Candidates]:
        """The user side and the N items, to be encoded in the run: items only if they must be."""
        rows = self._rows
        return UserSide(rows["user"], rows["context"]), Candidates(rows["item"], self._content)

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
