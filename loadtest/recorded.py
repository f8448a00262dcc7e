"""What was asked once: `/rank` requests out of a decision log, in the order they came.

Unlike requests drawn from a sample, they have the traffic's own users, popular items and sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bundle.store import Bundle
from loadtest.samples import Asked, Format, RequestSource, SampleUnusable

_METADATA = b"multirank.decisions"
_COLUMNS = ["model", "user_id", "item_ids", "given"]
_MOST_REQUESTS = 20_000


class RecordedSource:
    """Requests of a decision log to one model, again and again.

    Args:
        log: its directory, or one closed file of it.
        seed: another one begins elsewhere in the log.

    Raises:
        SampleUnusable: the log has no closed file with a request to the model.
    """

    def __init__(self, bundle: Bundle, log: Path, answer_format: Format, seed: int = 0) -> None:
        self._model = bundle.manifest.model
        self._tasks = bundle.manifest.task_names
        self._format = answer_format
        self._records = list(itertools.islice(_records(log, self._model), _MOST_REQUESTS))
        if not self._records:
            raise SampleUnusable(
                f"{log}: no request to {self._model} in a closed file of a decision log (*.parquet)"
            )
        self.candidates = float(np.mean([len(record["item_ids"]) for record in self._records]))
        first = int(np.random.default_rng(seed).integers(len(self._records)))
        self._numbers = itertools.count(first)
        self._name = f"loadtest-{seed}-"

    def draw(self) -> Asked:
        """The next request, with an id of its own."""
        number = next(self._numbers)
        record = self._records[number % len(self._records)]
        request_id = f"{self._name}{number}"
        body = orjson.dumps(self._request(record, request_id))
        return Asked(body, request_id, record["item_ids"], self._model, self._tasks, self._format)

    def _request(self, record: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        given = orjson.loads(record["given"])
        user: dict[str, Any] = {"features": given["user"]} if given["user"] else {}
        if record["user_id"] is not None:
            user["id"] = record["user_id"]
        candidates = {"ids": record["item_ids"]}
        if given["items"]:
            candidates["features"] = given["items"]
        request = {
            "request_id": request_id,
            "model": self._model,
            "user": user,
            "context": given["context"],
            "candidates": candidates,
            "format": self._format,
        }
        if fusion := {name: value for name, value in given["fusion"].items() if value}:
            request["fusion"] = fusion
        return request


def source_of(
    bundle: Bundle, log: Path | None, candidates: int, answer_format: Format, seed: int = 0
) -> RecordedSource | RequestSource:
    """Where requests come from: a decision log, or the sample that the model was published with.

    Raises:
        SampleUnusable: there is no request to be had.
    """
    if log is not None:
        return RecordedSource(bundle, log, answer_format, seed)
    return RequestSource(bundle, candidates, answer_format, seed)


def _records(log: Path, model: str) -> Iterator[dict[str, Any]]:
    files = [log] if log.is_file() else sorted(log.rglob("*.parquet"), key=lambda path: path.name)
    for file in files:
        try:
            opened = pq.ParquetFile(file)
            if _METADATA not in (opened.schema_arrow.metadata or {}):
                raise SampleUnusable(f"{file}: no file of a decision log")
            for batch in opened.iter_batches(columns=_COLUMNS):
                yield from (record for record in batch.to_pylist() if record["model"] == model)
        except (OSError, pa.ArrowException) as error:
            raise SampleUnusable(f"{file}: {error}") from error
