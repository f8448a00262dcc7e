"""The load generator's two loops, against a server of twenty lines that answers as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
import pytest

from loadtest.closed_loop import closed_loop
from loadtest.open_loop import Arrival, evenly, latency_ms, open_loop, outcomes, poisson
from loadtest.prepared import ITEMS, TASKS, USERS, Feed, Prepared, outcome

Handler = Callable[[dict[str, Any]], Awaitable[tuple[int, Any] | None]]


def right_answer(request: dict[str, Any]) -> dict[str, Any]:
    ids = request["candidates"]["ids"][::-1]
    column = [0.5] * len(ids)
    return {"ids": ids, "scores": column, "tasks": dict.fromkeys(TASKS, column), "degraded": None}


@contextmanager
def answering(handler: Handler) -> Iterator[str]:
    """A server in a thread of its own; None from the handler ends the connection."""

    url, stop = "", asyncio.Event()
    ready, loops = threading.Event(), list[asyncio.AbstractEventLoop]()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                answer = await handler(orjson.loads(await reader.readexactly(length)))
                if answer is None:
                    break
                body = orjson.dumps(answer[1])
                status = f"HTTP/1.1 {answer[0]} Whatever\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(status.encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        nonlocal url, stop
        stop = asyncio.Event()
        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        loops.append(asyncio.get_running_loop())
        ready.set()
        async with server:
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield url
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


async def rightly(request: dict[str, Any]) -> tuple[int, Any]:
    return 200, right_answer(request)


def test_requests_differ_and_ask_for_distinct_items() -> None:
    drawn = Feed(seed=0).draw(20, 200)

    assert len({each.message for each in drawn}) == 20
    assert all(len(set(each.candidates.tolist())) == 200 for each in drawn)
    assert [each.message for each in Feed(seed=0).draw(20, 200)] == [each.message for each in drawn]


def test_everything_is_every_user_and_every_item_once() -> None:
    bodies = [
        orjson.loads(each.message.split(b"\r\n\r\n")[1]) for each in Feed(seed=0).everything()
    ]

    assert sorted(body["user"]["id"] for body in bodies) == list(range(USERS))
    assert sorted(i for body in bodies for i in body["candidates"]["ids"]) == list(range(ITEMS))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "ok"),
        ({"degraded": {"reasons": ["timeout"]}}, "degraded"),
        ({"ids": [1, 2, 2]}, "wrong"),
        ({"ids": [1, 2]}, "wrong"),
        ({"scores": [1.0]}, "wrong"),
        ({"tasks": {"click": [0.1] * 3, "like": [0.1] * 3, "share": [0.1]}}, "wrong"),
    ],
)
def test_a_200_counts_only_when_it_holds_everything(change: dict[str, Any], expected: str) -> None:
    answer = right_answer({"candidates": {"ids": [1, 2, 3]}}) | change

    request = Prepared(b"", np.array([3, 1, 2]))
    assert outcome(200, orjson.dumps(answer), request) == expected
    assert outcome(429, b"", request) == "429"


def test_a_closed_loop_asks_each_request_once_and_counts_the_answers() -> None:
    async def handler(request: dict[str, Any]) -> tuple[int, Any]:
        return (429, {}) if request["user"]["id"] % 2 else await rightly(request)

    requests = Feed(seed=0).draw(40, 10)
    odd = sum(
        orjson.loads(each.message.split(b"\r\n\r\n")[1])["user"]["id"] % 2 for each in requests
    )
    with answering(handler) as url:
        found = closed_loop(url, requests, connections=3, seconds=None)

    assert found.outcomes == {"ok": 40 - odd, "429": odd}
    assert found.rows == 10 * (40 - odd)


def test_a_closed_loop_goes_on_when_a_connection_is_lost() -> None:
    seen = 0

    async def handler(request: dict[str, Any]) -> tuple[int, Any] | None:
        nonlocal seen
        seen += 1
        return None if seen == 1 else await rightly(request)

    with answering(handler) as url:
        found = closed_loop(url, Feed(seed=0).draw(10, 5), connections=2, seconds=None)

    assert found.outcomes == {"lost": 1, "ok": 9}


def test_an_open_loop_sends_on_while_nothing_is_answered() -> None:
    """The server holds all answers back until the last request is there."""
    seen: list[int] = []
    everyone = asyncio.Event()

    async def handler(request: dict[str, Any]) -> tuple[int, Any]:
        seen.append(1)
        if len(seen) == 50:
            everyone.set()
        await everyone.wait()
        return await rightly(request)

    arrivals = evenly(Feed(seed=0).draw(50, 5), per_s=500, seconds=0.1)
    with answering(handler) as url:
        answers = open_loop(url, arrivals)

    assert outcomes(answers) == {"ok": 50}
    last_due = arrivals[-1].due_s
    assert all(each.due_s + each.latency_ms / 1000 >= last_due for each in answers)


def test_an_open_loop_counts_what_is_lost_and_watches() -> None:
    seen = 0

    async def handler(request: dict[str, Any]) -> tuple[int, Any] | None:
        nonlocal seen
        seen += 1
        return None if seen % 2 else await rightly(request)

    watched: list[float] = []
    with answering(handler) as url:
        answers = open_loop(url, evenly(Feed(seed=0).draw(20, 5), 500, 0.04), watched.append)

    assert outcomes(answers) == {"lost": 10, "ok": 10}
    assert watched


def test_arrivals() -> None:
    requests = Feed(seed=0).draw(3, 5)

    random = poisson(requests, per_s=200.0, seconds=5.0, seed=1)
    assert 850 < len(random) < 1150
    assert random == sorted(random, key=lambda each: each.due_s)
    assert random[-1].due_s < 5.0
    assert evenly(requests, 2.0, 2.0) == [
        Arrival(0.0, requests[0]),
        Arrival(0.5, requests[1]),
        Arrival(1.0, requests[2]),
        Arrival(1.5, requests[0]),
    ]


def test_no_right_answer_has_no_latency() -> None:
    assert set(latency_ms([]).values()) == {None}
