"""The batcher: whatever is asked together, each gets exactly its own scores."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InferenceFailed
from service.scoring.queue import Answer
from tests.unit.service.scoring.fake_stages import Bench, Thrown, expected, on_bench, turns

many = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Request:
    """`number` is what the request is called; a lower `rank` is an earlier deadline."""

    number: int
    items: tuple[int, ...]
    rank: int

    @property
    def within_s(self) -> float:
        return 100.0 + self.rank


@st.composite
def traffic(draw: st.DrawFn, max_rows: int = 12) -> list[Request]:
    items = st.lists(st.integers(1, 500), min_size=1, max_size=max_rows).map(tuple)
    asked = draw(st.lists(st.tuples(items, st.integers(0, 1000)), min_size=1, max_size=9))
    return [Request(number, rows, rank) for number, (rows, rank) in enumerate(asked, 1)]


def rows_of(request: Request) -> list[tuple[int, int]]:
    return [(request.number, item) for item in request.items]


async def answers(
    bench: Bench, requests: list[Request], gather_first: bool
) -> list[Answer | BaseException]:
    running = [await bench.occupy()] if gather_first else []
    tasks = [bench.submit(each.number, each.items, each.within_s) for each in requests]
    if gather_first:
        await turns()
        bench.stages.release()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*running)
    return found


@many
@given(traffic(), st.integers(1, 30), st.booleans())
def test_each_request_gets_its_own_scores(
    requests: list[Request], row_budget: int, gather_first: bool
) -> None:
    async def test(bench: Bench) -> None:
        found = await answers(bench, requests, gather_first)
        for request, answer in zip(requests, found, strict=True):
            assert isinstance(answer, Answer), answer
            assert answer.scores.tolist() == expected(request.number, request.items)
            assert answer.queue_s >= 0
            assert answer.run_s >= 0
        first = [(0, 0)] if gather_first else []
        wanted = first + [row for request in requests for row in rows_of(request)]
        assert sorted(bench.stages.rows) == sorted(wanted)  # no row twice, none for nothing
        assert max(map(len, bench.stages.runs)) <= row_budget
        seen = [request for run in bench.stages.user_runs for request in run]
        assert sorted(seen) == sorted({request for request, _ in wanted})

    on_bench(test, row_budget=row_budget)


@many
@given(traffic(), st.integers(1, 30))
def test_what_has_gathered_is_packed_earliest_deadline_first(
    requests: list[Request], row_budget: int
) -> None:
    async def test(bench: Bench) -> None:
        await answers(bench, requests, gather_first=True)
        in_order = sorted(requests, key=lambda each: (each.rank, each.number))
        gathered = bench.stages.runs[1:]
        ran = [row for run in gathered for row in run]
        for fits in (True, False):  # those larger than a run leave room for those that are not
            numbers = {r.number for r in requests if (len(r.items) <= row_budget) == fits}
            assert [row for row in ran if row[0] in numbers] == [
                row for request in in_order for row in rows_of(request) if row[0] in numbers
            ]
        rows = sum(len(request.items) for request in requests)
        large = {r.number for r in requests if len(r.items) > row_budget}
        for run in gathered:
            of_large = sum(request in large for request, _ in run)
            assert of_large <= max(row_budget // 4, 1)
            assert len(run) <= row_budget
        if not large:
            assert len(gathered) == math.ceil(rows / row_budget)
            assert all(len(run) == row_budget for run in gathered[:-1])
        assert bench.value("run_rows_sum") == rows + 1
        assert bench.value("run_rows_count") == len(gathered) + 1

    on_bench(test, row_budget=row_budget)


@many
@given(traffic(), st.integers(1, 30), st.data(), st.booleans())
def test_only_the_guilty_fail(
    requests: list[Request], row_budget: int, data: st.DataObject, gather_first: bool
) -> None:
    poison = data.draw(st.sets(st.sampled_from(sorted({i for r in requests for i in r.items}))))

    async def test(bench: Bench) -> None:
        found = await answers(bench, requests, gather_first)
        for request, answer in zip(requests, found, strict=True):
            if set(request.items) & poison:
                assert isinstance(answer, InferenceFailed), answer
                assert isinstance(answer.__cause__, Thrown)
            else:
                assert isinstance(answer, Answer), answer
                assert answer.scores.tolist() == expected(request.number, request.items)
        assert not {item for _, item in bench.stages.rows} & poison

    on_bench(test, row_budget=row_budget, poison=poison)


@many
@given(traffic(), st.integers(1, 30), st.data())
def test_those_who_leave_cost_nothing(
    requests: list[Request], row_budget: int, data: st.DataObject
) -> None:
    leaving = data.draw(st.sets(st.sampled_from(range(len(requests)))))

    async def test(bench: Bench) -> None:
        running = await bench.occupy()
        tasks = [bench.submit(each.number, each.items, each.within_s) for each in requests]
        await turns()
        queued = sum(len(request.items) for request in requests)
        assert bench.value("queued_rows") == queued
        for each in leaving:
            tasks[each].cancel()
        await turns()
        stay = [each for number, each in enumerate(requests) if number not in leaving]
        assert bench.value("queued_rows") == sum(len(request.items) for request in stay)
        bench.stages.release()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await running
        for number, (request, answer) in enumerate(zip(requests, found, strict=True)):
            if number in leaving:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert isinstance(answer, Answer)
                assert answer.scores.tolist() == expected(request.number, request.items)
        assert sorted(bench.stages.rows[1:]) == sorted(
            row for request in stay for row in rows_of(request)
        )
        assert bench.dropped("abandoned") == len(leaving)

    on_bench(test, row_budget=row_budget)
