"""`python -m loadtest.chaos`: each failure in turn under load; one JSON line a case.

A promise is broken when a request fails, is answered after its deadline or with another id's
features, when a default is used without a word, or when `degraded` is not null again in time.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtest.chaos.cases import CASES, Bed, Case
from loadtest.chaos.driver import Driver, Record
from loadtest.chaos.echo_model import MODEL
from loadtest.chaos.echo_service import echo_redis, serve_command
from loadtest.chaos.proxy import Proxy
from loadtest.server import ServiceFailed, end_between_steps, pause, serving

_CACHE_BYTES = 150_000
"""Room for about a third of the rows in process: every request has to read some."""

_WARM_S = 1.0
_CLEAN_S = 0.5
"""Answers must be whole this long before a case begins, and after it to count as recovered."""


def chaos(
    only: Annotated[list[str] | None, typer.Option(help="These cases alone")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long a failure lasts")] = 3.0,
    pause_seconds: Annotated[float, typer.Option(min=0.1, help="How long Redis is paused")] = 5.0,
    timeout_ms: Annotated[float, typer.Option(min=1, help="Deadline of a request")] = 500.0,
    recovery_s: Annotated[float, typer.Option(min=0.1, help="Longest recovery")] = 2.0,
) -> None:
    """Start Redis and the service, let Redis fail in ten ways. Ends with 1 on a broken promise."""
    names = [case.name for case in CASES]
    if unknown := set(only or ()) - set(names):
        typer.echo(f"no case {', '.join(sorted(unknown))}; there are {', '.join(names)}", err=True)
        raise typer.Exit(2)
    broken = 0
    try:
        with _bed(seconds, pause_seconds, timeout_ms) as bed:
            for case in CASES:
                if not only or case.name in only:
                    result = _run(case, bed, recovery_s)
                    broken += not result["ok"]
                    print(json.dumps(result), flush=True)
    except ServiceFailed as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    if broken:
        typer.echo(f"{broken} cases broke their promise", err=True)
        raise typer.Exit(1)


@contextmanager
def _bed(seconds: float, pause_s: float, timeout_ms: float) -> Iterator[Bed]:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="multirank-chaos-")))
        models, redis = stack.enter_context(echo_redis(scratch))
        proxy = stack.enter_context(Proxy(redis.port))
        command = serve_command(proxy.port, feature_cache_bytes=_CACHE_BYTES, timeout_ms=timeout_ms)
        service = stack.enter_context(serving(models, MODEL, scratch / "service.log", command))
        driver = stack.enter_context(Driver(service.url, timeout_ms / 1000))
        pause(_WARM_S)
        yield Bed(redis, proxy, driver, seconds, pause_s)


def _run(case: Case, bed: Bed, limit_s: float) -> dict[str, Any]:
    _until_clean(bed.driver.new_record(), time.monotonic(), limit_s)
    record = bed.driver.new_record()
    pause(_CLEAN_S)
    case.fail(bed)
    mended = time.monotonic()
    _until_clean(record, mended, limit_s)
    recovery_s = max(0.0, record.last_degraded - mended)
    ok = (
        not (record.failed or record.late or record.wrong)
        and record.last_answer > mended
        and recovery_s <= limit_s
        and (bool(record.degraded) or not case.degrades)
    )
    return {
        "case": case.name,
        "ok": ok,
        "requests": record.requests,
        "failed": record.failed,
        "late": record.late,
        "wrong_rows": record.wrong,
        "degraded": record.degraded,
        "recovery_s": round(recovery_s, 3),
        "reasons": dict(record.reasons),
        "complaints": dict(record.complaints),
    }


def _until_clean(record: Record, since: float, limit_s: float) -> None:
    """Wait until answers are whole for a while, or are not whole in time."""
    while time.monotonic() < since + limit_s + _CLEAN_S:
        pause(0.05)
        clean_since = max(since, record.last_degraded)
        if record.last_answer > clean_since + _CLEAN_S:
            return


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(chaos)

if __name__ == "__main__":
    os.setpgrp()  # Ctrl-C reaches this process alone, which stops what it started in order
    end_between_steps()
    app()
