"""Locust users that rank, each as fast as it is answered (a closed loop).

Imported by locust alone, which patches the standard library for gevent first:

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000 --models models --users 4

`python -m loadtest.run` does this against a service of its own.
"""

from __future__ import annotations

import itertools
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import gevent
import locust

from bundle.store import Bundle
from loadtest.answers import Answer, WrongAnswer, check
from loadtest.measurements import Recorder
from loadtest.recorded import RecordedSource, source_of
from loadtest.samples import Asked, RequestSource, SampleUnusable, newest

_HEADERS = {"Content-Type": "application/json"}
_seeds = itertools.count()


class RankUser(locust.FastHttpUser):
    """Ranks the published model's items for its users, and checks every answer.

    Attributes:
        options, bundle, recorder: what all users of a run share, set by the listeners below.
    """

    wait_time = locust.constant(0)
    network_timeout = 10.0
    connection_timeout = 10.0
    options: Any
    bundle: Bundle
    recorder: Recorder

    def on_start(self) -> None:
        """Each user draws requests of its own, the same in every run."""
        self._source = _source(self.bundle, self.options, next(_seeds))

    @locust.task
    def rank(self) -> None:
        """One request, one checked answer."""
        asked = self._source.draw()
        with self.client.post(
            "/rank", data=asked.body.decode(), headers=_HEADERS, catch_response=True
        ) as response:
            now = time.monotonic()
            latency_ms = response.request_meta["response_time"]
            try:
                answer = _judge(response, asked)
            except WrongAnswer as error:
                response.failure(str(error))
                self.recorder.record(str(error), latency_ms, now)
            else:
                response.success()
                self.recorder.record(answer, latency_ms, now)


def _source(bundle: Bundle, options: Any, seed: int) -> RecordedSource | RequestSource:
    log = Path(options.recorded) if options.recorded else None
    return source_of(bundle, log, options.candidates, options.answer_format, seed)


def _judge(response: Any, asked: Asked) -> Answer:
    if not response.status_code:
        raise WrongAnswer(f"no answer: {type(response.error).__name__}")
    return check(response.status_code, response.content or b"", asked)


def _add_options(parser: ArgumentParser, **_: object) -> None:
    group = parser.add_argument_group("multirank")
    group.add_argument("--models", default="models", help="Directory of published models")
    group.add_argument("--model", default="", help="The model; the only one when left out")
    group.add_argument("--candidates", type=int, default=200, help="Candidates in a request")
    group.add_argument("--recorded", default="", help="A decision log: its requests are sent")
    group.add_argument("--answer-format", choices=("rows", "columns"), default="rows")
    group.add_argument("--warm-up-s", type=float, default=0.0, help="Seconds that are not timed")
    group.add_argument("--measurements", default="", help="File for the exact measurements")


def _prepare(environment: Any, **_: object) -> None:
    options = RankUser.options = environment.parsed_options
    try:
        RankUser.bundle = newest(Path(options.models), options.model or None)
        _source(RankUser.bundle, options, 0)
    except SampleUnusable as error:
        raise SystemExit(str(error)) from error  # locust logs any other exception and goes on
    gevent.sleep(0)  # the run time counts from the loop's last turn, which was before all imports


def _start(**_: object) -> None:
    RankUser.recorder = Recorder(time.monotonic() + RankUser.options.warm_up_s)


def _count_error(exception: Exception, **_: object) -> None:
    RankUser.recorder.record(f"the load test itself failed: {exception!r}", 0.0, time.monotonic())


def _save(**_: object) -> None:
    if RankUser.options.measurements:
        RankUser.recorder.found.save(Path(RankUser.options.measurements))


_events: Any = locust.events  # untyped, where the rest of locust is not
_events.init_command_line_parser.add_listener(_add_options)
_events.init.add_listener(_prepare)
_events.test_start.add_listener(_start)
_events.user_error.add_listener(_count_error)
_events.quitting.add_listener(_save)
