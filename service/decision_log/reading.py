"""Reading the log back: files -> records, with their packed rows under any version's layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bundle.rows import RowLayout, Rows
from bundle.schema import ENTITIES, Categorical, Entity, FeatureSchema, IdList
from service.decision_log.batches import FORMAT, METADATA
from service.decision_log.segment import CLOSED, OPEN, whole_batches
from service.files import check_plain
from service.values import Scores

_BATCH_ROWS = 64


class LogUnreadable(Exception):
    """A file is not one of the log; the message names it."""


@dataclass(frozen=True)
class Recorded:
    """One logged decision.

    Attributes:
        rows: the packed rows that were encoded, under `layouts`.
        tasks: names of the T tasks. scores: float32 [N, T].
        fused: float64 [N]; None of /score.
        fusion, fusion_version: what fused them. weights: of the fusion.
        formula: of a fusion that the request brought itself.
    """

    request_id: str
    model: str
    version: int
    item_ids: list[str]
    rows: Mapping[Entity, Rows]
    layouts: Mapping[Entity, RowLayout]
    tasks: tuple[str, ...]
    scores: Scores
    fused: npt.NDArray[np.float64] | None
    fusion: str | None
    fusion_version: str | None
    weights: Mapping[str, float]
    formula: str | None

    def rows_for(self, layouts: Mapping[Entity, RowLayout]) -> tuple[dict[Entity, Rows], list[str]]:
        """The rows under other layouts, and the features that the log does not have, by key.

        Values are kept as they are, so a feature moves over if name, kind and length are the same;
        of id lists, as much as both have room for.
        """
        moved: dict[Entity, Rows] = {}
        absent: list[str] = []
        for entity in ENTITIES:
            source, target = self.layouts[entity], layouts[entity]
            rows = self.rows[entity]
            if source.digest == target.digest:
                moved[entity] = rows
                continue
            moved[entity], lacking = _moved(rows, source, target)
            absent += [f"{entity}.{name}" for name in lacking]
        return moved, absent


def files_of(place: Path) -> list[Path]:
    """The files of a log, oldest first: those below a directory, or the one that is named.

    Raises:
        LogUnreadable: there is none.
    """
    if place.is_file():
        return [place]
    found = [path for path in place.rglob("*") if path.suffix in (OPEN, CLOSED)]
    if not found:
        raise LogUnreadable(f"{place}: no decision log there (*{CLOSED}, *{OPEN})")
    return sorted(
        (path for path in found if not path.name.startswith(".")), key=lambda path: path.name
    )


def read(file: Path) -> Iterator[Recorded]:
    """The decisions of one file; of an open one, those written so far.

    Raises:
        LogUnreadable: it is no file of the log.
    """
    try:
        check_plain(file)
        if file.suffix == OPEN:
            batches = whole_batches(file)
        else:
            batches = pq.ParquetFile(file).iter_batches(_BATCH_ROWS)
        for batch in batches:
            yield from _records(file, batch)
    except (OSError, pa.ArrowException) as error:
        raise LogUnreadable(f"{file}: {error}") from error


def _records(file: Path, batch: pa.RecordBatch) -> Iterator[Recorded]:
    described = json.loads((batch.schema.metadata or {}).get(METADATA, b"{}"))
    if described.get("format") != FORMAT:
        raise LogUnreadable(f"{file}: no decision log, or one of another release")
    features = FeatureSchema.model_validate(described["features"])
    layouts = {entity: RowLayout(features, entity) for entity in ENTITIES}
    tasks = tuple(described["tasks"])
    for record in batch.to_pylist(maps_as_pydicts="strict"):
        yield _recorded(record, layouts, tasks)


def _recorded(
    record: Mapping[str, Any], layouts: Mapping[Entity, RowLayout], tasks: tuple[str, ...]
) -> Recorded:
    fused = record["fused"]
    given = json.loads(record["given"])
    return Recorded(
        request_id=record["request_id"],
        model=record["model"],
        version=record["version"],
        item_ids=record["item_ids"],
        rows={e: np.frombuffer(record[f"rows.{e}"], layouts[e].dtype) for e in ENTITIES},
        layouts=layouts,
        tasks=tasks,
        scores=np.array([record[f"score.{task}"] for task in tasks], np.float32).T,
        fused=None if fused is None else np.array(fused, np.float64),
        fusion=record["fusion"],
        fusion_version=record["fusion_version"],
        weights=record["fusion_weights"] or {},
        formula=given["fusion"]["formula"],
    )


def _moved(rows: Rows, source: RowLayout, target: RowLayout) -> tuple[Rows, list[str]]:
    moved = target.empty(len(rows))
    absent = []
    for name, slot in target.slots.items():
        old = source.slots.get(name)
        is_list = isinstance(slot.feature, IdList)
        same_kind = old is not None and old.feature.kind == slot.feature.kind
        if old is None or not same_kind or (old.width != slot.width and not is_list):
            absent.append(name)
            continue
        block = "hashes" if isinstance(slot.feature, Categorical | IdList) else "numbers"
        width = min(old.width, slot.width)
        moved[block][:, slot.start : slot.start + width] = rows[block][
            :, old.start : old.start + width
        ]
    return moved, absent
