"""The contract of a feature store, run over every store that there is.

Whoever adds a store adds it to the fixture `opened`, with a way to write to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import redis_deployments
from tests.contract.stores import (
    PREFIX,
    ROWS,
    Open,
    embedded,
    following,
    on_redis,
    read,
    soon,
)
from tests.redis_deployments import Deploy

DEPLOYMENTS: dict[str, Deploy] = {
    "redis": redis_deployments.server,
    "valkey": redis_deployments.valkey,
    "unix": redis_deployments.unix_socket,
    "user": redis_deployments.user_and_password,
    "tls": redis_deployments.tls,
    "sentinel": redis_deployments.sentinel,
    "cluster": redis_deployments.cluster,
}


@pytest.fixture(scope="module", params=["embedded", *DEPLOYMENTS])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens an empty store of each kind, on a Redis of each deployment."""
    if request.param == "embedded":
        yield embedded
        return
    with (
        # not pytest's: the path of a socket in the file system has a hundred characters at most
        TemporaryDirectory(prefix="mr-") as directory,
        DEPLOYMENTS[request.param](Path(directory)) as url,
    ):
        yield lambda: on_redis(url)


def test_rows_come_back_byte_for_byte_in_the_order_asked(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            write(ROWS)
            for keys in (list(ROWS), list(ROWS)[::-1]):
                assert await read(store, keys) == [ROWS[key] for key in keys]

    asyncio.run(check())


def test_a_row_that_is_not_there_is_none(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            first, second = list(ROWS)[:2]
            asked = [first, f"{PREFIX}nobody", second]
            assert await read(store, asked) == [None, None, None]
            write(ROWS)
            assert await read(store, asked) == [ROWS[first], None, ROWS[second]]

    asyncio.run(check())


def test_a_key_asked_twice_is_answered_twice_and_none_is_answered_by_nothing(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            write(ROWS)
            key = next(iter(ROWS))
            assert await read(store, [key, key]) == [ROWS[key]] * 2
            assert await read(store, []) == []

    asyncio.run(check())


def test_the_last_write_counts(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            first, second = list(ROWS)[:2]
            write(ROWS)
            write({first: b"newer"})
            assert await read(store, [first, second]) == [b"newer", ROWS[second]]

    asyncio.run(check())


def test_writing_nothing_is_allowed(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            write({})
            assert await read(store, list(ROWS)) == [None] * len(ROWS)

    asyncio.run(check())


def test_as_many_rows_as_a_request_may_have_candidates(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            rows = {f"{PREFIX}{number}": b"%d" % number * 40 for number in range(2001)}
            write(rows)
            assert await read(store, list(rows)) == list(rows.values())

    asyncio.run(check())


def test_readers_at_the_same_time_get_their_own_rows(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, write):
            rows = {f"{PREFIX}{number}": b"%d" % number for number in range(200)}
            write(rows)
            keys = list(rows)
            asked = [[keys[n], f"{PREFIX}nobody", keys[-n]] for n in range(len(keys))]
            answers = await asyncio.gather(*(read(store, each) for each in asked))
            assert answers == [[rows.get(key) for key in each] for each in asked]

    asyncio.run(check())


def test_a_store_that_is_there_answers_a_ping_and_has_a_name(opened: Open) -> None:
    async def check() -> None:
        async with opened() as (store, _):
            await store.ping()
            assert store.name.isidentifier()

    asyncio.run(check())


def test_no_write_goes_unnoticed(opened: Open) -> None:
    """Either the key is reported, or `generation` says that anything may have changed."""

    async def check() -> None:
        async with opened() as (store, write), following(store) as reported:
            for key, row in ROWS.items():
                before = store.generation
                reported.clear()
                write({key: row})

                def noticed(key: str = key, before: int = before) -> bool:
                    return key in reported or store.generation > before

                await soon(noticed)

    asyncio.run(check())
