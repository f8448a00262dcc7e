"""Triton's Python backend: `model.py` of the model repository, one instance.

Triton speaks its own protocol (KServe 2) with binary tensors: user, context and candidates as
integers; the body of the answer as bytes of JSON.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import redis
import triton_python_backend_utils as triton  # put there by the backend

from loadtest.peers.handler import Handler


class TritonPythonModel:
    """The handler."""

    def initialize(self, args: dict[str, str]) -> None:
        """Before the first request."""
        self._handler = Handler()
        self._store = redis.Redis.from_url(self._handler.redis_url)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer those requests that have come together."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        user, context, ids = (
            triton.get_input_tensor_by_name(request, name).as_numpy().tolist()
            for name in ("USER", "CONTEXT", "CANDIDATES")
        )
        asked = {
            "user": {"id": user[0]},
            "context": {f"context_{index}": value for index, value in enumerate(context)},
            "candidates": {"ids": ids},
        }
        rows: Any = self._store.mget(self._handler.keys(asked))
        body = np.frombuffer(self._handler.answer(asked, rows), np.uint8)
        return triton.InferenceResponse([triton.Tensor("ANSWER", body)])
