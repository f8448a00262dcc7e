"""`python -m loadtest.run`: serve published models, load them with locust, print what came of it.

A closed loop: each user sends its next request when the last one is answered, so latency at a given
rate cannot be read from it; requests/s at a given number of users can. Client and service share
the machine's cores: `service` in the table is what the service measured of the same requests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from loadtest.measurements import PERCENTILES, Measurements, summary
from loadtest.recorded import source_of
from loadtest.samples import Format, SampleUnusable, newest
from loadtest.server import RunningService, ServiceFailed, end_between_steps, pause, serving, tail

_WARM_UP_S = 1
_LAST_ANSWERS_S = 10
"""How long locust waits for the answers that are under way at the end."""


class LocustFailed(Exception):
    """Locust ended without measurements; the message has the end of its log."""


def run(
    models: Annotated[
        Path, typer.Option(envvar="MULTIRANK_MODELS_DIR", help="Directory of published models")
    ] = Path("models"),
    model: Annotated[str, typer.Option(help="The model; the only one when left out")] = "",
    seconds: Annotated[int, typer.Option(min=1, help="Timed seconds")] = 30,
    users: Annotated[int, typer.Option(min=1, help="Requests in flight at any time")] = 4,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates in a request")] = 200,
    answer_format: Annotated[Format, typer.Option("--format", help="Form of the answers")] = "rows",
    recorded: Annotated[
        Path | None, typer.Option(help="A decision log whose requests are sent, in their order")
    ] = None,
) -> None:
    """Serve MODELS on a free port and load the service with locust. Ends with 1 on any failure."""
    if importlib.util.find_spec("locust") is None:
        raise _stop(2, "locust is not installed: pip install 'multirank[dev]'")
    try:
        bundle = newest(models, model or None)
        source = source_of(bundle, recorded, candidates, answer_format)
    except SampleUnusable as error:
        raise _stop(2, str(error)) from error
    asked: dict[str, Any] = {
        "model": bundle.manifest.model,
        "users": users,
        "candidates": source.candidates,
        "format": answer_format,
        "recorded": None if recorded is None else str(recorded),
    }
    with tempfile.TemporaryDirectory(prefix="multirank-loadtest-") as scratch:
        try:
            with serving(models, bundle.manifest.model, Path(scratch, "service.log")) as service:
                typer.echo(f"{service.url} is ready; {seconds} s of locust follow", err=True)
                found = _load(service, models, seconds, asked, Path(scratch))
        except (ServiceFailed, LocustFailed) as error:
            raise _stop(1, str(error)) from error
    result = {**asked, **summary(found, source.candidates)}
    _show(result)
    print(json.dumps(result), flush=True)
    if result["failures"] or not result["requests"]:
        raise typer.Exit(1)


def _load(
    service: RunningService, models: Path, seconds: int, asked: dict[str, Any], scratch: Path
) -> Measurements:
    log, measurements = scratch / "locust.log", scratch / "measurements.json"
    options = {
        "--locustfile": Path(__file__).with_name("locustfile.py"),
        "--host": service.url,
        "--users": asked["users"],
        "--spawn-rate": asked["users"],
        "--run-time": f"{seconds + _WARM_UP_S}s",
        "--stop-timeout": _LAST_ANSWERS_S,
        "--models": models,
        "--model": asked["model"],
        "--candidates": int(asked["candidates"]),
        "--answer-format": asked["format"],
        "--warm-up-s": _WARM_UP_S,
        "--measurements": measurements,
    }
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary"]
    if asked["recorded"] is not None:
        options["--recorded"] = asked["recorded"]
    command += [str(part) for option in options.items() for part in option]
    settings = {name: v for name, v in os.environ.items() if not name.startswith("LOCUST_")}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=settings) as locust,
    ):
        try:
            while locust.poll() is None:
                service.check()
                pause(0.05)
        finally:
            locust.terminate()
    if locust.returncode not in (0, 1) or not measurements.exists():  # 1: there were failures
        raise LocustFailed(f"locust ended with {locust.returncode}; its log:\n{tail(log)}")
    return Measurements.load(measurements)


def _show(result: dict[str, Any]) -> None:
    table = Table()
    table.add_column("latency, ms")
    for name in PERCENTILES:
        table.add_column(name, justify="right")
    for about, key in (("client", "latency_ms"), ("service", "service_ms")):
        values = result[key].values()
        table.add_row(about, *("-" if ms is None else f"{ms:.2f}" for ms in values))
    console = Console(highlight=False)
    console.print(
        f"{result['model']}: {result['users']} users, {result['candidates']:g} candidates a "
        f"request, answers in {result['format']}, {result['seconds']:.1f} s"
    )
    console.print(table)
    console.print(
        f"{result['requests']} requests, {result['requests_per_s']:.1f} requests/s, "
        f"{result['candidates_per_s']:,.0f} candidates/s"
    )
    versions = ", ".join(f"{version} ({n})" for version, n in result["versions"].items())
    console.print(f"failures: {result['failures']}   degraded: {result['degraded']}")
    console.print(f"answers by model version: {versions or 'none'}")
    for kind in ("failure_messages", "degraded_reasons"):
        for message, count in result[kind].items():
            console.print(f"  {count} x {message}", markup=False)


def _stop(code: int, message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(code)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(run)

if __name__ == "__main__":
    end_between_steps()
    app()
