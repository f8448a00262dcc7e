"""The handler that every peer runs: from a `/rank` request to its answer.

One MGET of the user's and the candidates' packed rows, decoded by numpy as arrays; the user's
columns repeated for every candidate; onnxruntime with one thread over the undivided graph; the
formula over arrays; orjson out. It has what multirank's own request has: the same rows, encoder,
network and answer. Runs in a peer's environment: numpy, onnxruntime, redis, orjson, and `bundle`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson

from bundle import store

_INPUTS = ("user_ids", "user_numbers", "item_ids", "item_numbers")


class Handler:
    """Everything but the transport.

    Attributes:
        redis_url: where the rows are.
    """

    def __init__(self) -> None:
        directory = Path(os.environ["PEER_BUNDLE"])
        self.redis_url = os.environ["PEER_REDIS_URL"]
        bundle = store.load(directory)
        self._encoder = bundle.encoder()
        layouts = self._encoder.layouts
        self._user, self._context, self._item = (
            layouts["user"],
            layouts["context"],
            layouts["item"],
        )
        user, item = (
            f"mr:{bundle.manifest.feature_set}:{layout.entity}:{int(layout.digest):016x}:"
            for layout in (self._user, self._item)
        )
        self._user_prefix, self._item_prefix = user, item
        self._tasks = bundle.manifest.task_names
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["PEER_GRAPH"], options, providers=["CPUExecutionProvider"]
        )

    def keys(self, request: Mapping[str, Any]) -> list[str]:
        """What is to be read in one MGET: the user's row, then the candidates'."""
        item = self._item_prefix
        ids = request["candidates"]["ids"]
        return [f"{self._user_prefix}{request['user']['id']}", *(f"{item}{each}" for each in ids)]

    def answer(self, request: Mapping[str, Any], rows: Sequence[bytes | None]) -> bytes:
        """The body of the answer: every candidate, best first, with the scores of all tasks."""
        if None in rows:
            raise LookupError("a row is not in the store")
        contexts = self._context.pack({k: [v] for k, v in request["context"].items()}, 1)
        user = self._encoder.user(self._user.decode(rows[:1]).rows, contexts)
        items = self._encoder.item(self._item.decode(rows[1:]).rows)
        tiled = user.take(np.zeros(len(items), np.intp))
        arrays = (tiled.ids, tiled.numbers, items.ids, items.numbers)
        (scores,) = self._session.run(None, dict(zip(_INPUTS, arrays, strict=True)))
        click, like, share = scores.T
        fused = click * (1 + like) * (1 + share)
        order = np.argsort(-fused, kind="stable")
        ranked = np.ascontiguousarray(scores[order].T)
        content = {
            "ids": np.asarray(request["candidates"]["ids"])[order],
            "scores": fused[order],
            "tasks": dict(zip(self._tasks, ranked, strict=True)),
            "degraded": None,
        }
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
