"""A second version is published while requests run: nobody notices but by the better answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, REQUEST, ids_of, scores_of, tasks_of
from tests.published import MODEL, ModelsDirectory, fused
from tests.servers import WAIT_S, eventually

SWAP_S = 5.0
"""The time after which a published version must answer."""

CLIENTS = 4


@dataclass
class Asked:
    """One answer under load: when it came, what was asked, and what was said."""

    at: float
    user: str
    status: int
    answer: Any


@dataclass
class Load:
    """Clients that ask without a pause, each on its own connection, until told to stop."""

    url: str
    users: list[str]
    items: list[str]
    asked: list[Asked] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask for as long as the block lasts; raises what a client met."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            started = [clients.submit(self._ask, number) for number in range(CLIENTS)]
            try:
                yield
            finally:
                self.enough.set()
        for client in started:
            client.result()

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=WAIT_S) as client:
            while not self.enough.is_set():
                user = self.users[number % len(self.users)]
                number += CLIENTS
                body = {
                    "user": {"id": user},
                    "context": CONTEXT,
                    "candidates": {"ids": self.items},
                }
                answer = client.post("/rank", json=body)
                self.asked.append(Asked(time.monotonic(), user, answer.status_code, answer.json()))

    def versions(self) -> set[int]:
        """The versions that have answered so far."""
        return {each.answer["model"]["version"] for each in list(self.asked)}


def test_a_version_published_under_load(models_dir: ModelsDirectory, serve: Serve) -> None:
    service = serve(models_dir.path, poll_interval_ms=500)  # the default
    old = models_dir.expected(1)
    load = Load(service.url, old.ids("user")[:12], old.ids("item")[:50])
    with load.running():
        eventually(lambda: len(load.asked) > 20)
        assert load.versions() == {1}
        assert models_dir.publish(2) == 2
        published_at = time.monotonic()
        eventually(lambda: 2 in load.versions())
        several = len(load.asked) + 50
        eventually(lambda: len(load.asked) > several)

    assert {each.status for each in load.asked} == {200}
    first = min(each.at for each in load.asked if each.answer["model"]["version"] == 2)
    assert first - published_at < SWAP_S
    last = max(each.at for each in load.asked if each.answer["model"]["version"] == 1)
    assert last - published_at < SWAP_S

    new = models_dir.expected(2)
    right = {
        (version, user): expected.scores(user, load.items, CONTEXT)
        for version, expected in ((1, old), (2, new))
        for user in load.users
    }
    least = min(np.abs(right[1, user] - right[2, user]).max() for user in load.users)
    assert least > 1e-3  # else an answer of the wrong version would pass
    place = {item: row for row, item in enumerate(load.items)}
    for each in load.asked:
        rows = [place[item] for item in ids_of(each.answer)]
        assert sorted(rows) == list(range(len(load.items)))
        scores = right[each.answer["model"]["version"], each.user][rows]
        np.testing.assert_allclose(tasks_of(each.answer), scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scores_of(each.answer), fused(scores), rtol=1e-5, atol=1e-5)

    assert eventually(lambda: service.version(MODEL, 1)["state"] == "closed")
    live = service.version(MODEL, 2)
    assert (live["state"], live["labels"], live["traffic"]) == ("ready", ["stable"], 1.0)
    assert service.http.post("/rank", json=REQUEST | {"version": 1}).status_code == 404
    assert service.metric("multirank_swaps_total", model=MODEL) == 2


def test_a_service_starts_with_the_newest_of_several(
    models_dir: ModelsDirectory, serve: Serve
) -> None:
    models_dir.publish(2)
    service = serve(models_dir.path)

    assert [each["version"] for each in service.model(MODEL)["versions"]] == [2]
