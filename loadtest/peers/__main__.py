"""`python -m loadtest.peers`: multirank and its peers on the same core, in turn, asked the same.

`feed200`, 200 candidates, everything warm. Every peer is checked against the bare loop's scores
before it is timed, and runs with the number of connections that suits it best. One that cannot be
installed, started or trusted is in the table with the reason. Writes peers.json and the README's
table; the last line is one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from loadtest.peers import report
from loadtest.peers.environments import Environment, Unavailable, environment
from loadtest.peers.products import PRODUCTS, Product
from loadtest.peers.running import Peer, PeerRound, running
from loadtest.prepared import Feed, Prepared
from loadtest.served import ServedRound
from loadtest.server import ServiceFailed, end_between_steps, pause
from loadtest.testbed import Testbed, circumstances, testbed
from loadtest.throughput import best_connections
from loadtest.workload import BuildFailed

CANDIDATES = 200
_POOL = 2_000
_CHECKS = 4


@dataclass
class Contestant:
    """What was found of multirank or of a peer.

    Attributes:
        connections: those it did best with.
        unavailable: why there are no rounds.
    """

    name: str
    version: str
    settings: str
    connections: int = 0
    rounds: list[PeerRound | ServedRound] = field(default_factory=list)
    largest_score_difference: float | None = None
    unavailable: str | None = None

    def result(self, reference: Contestant) -> dict[str, Any]:
        """As peers.json has it: medians over rounds, [min, max], and multirank over this."""
        about = {"name": self.name, "version": self.version, "settings": self.settings}
        if self.unavailable is not None or not self.rounds:
            return {**about, "unavailable": self.unavailable or "not measured"}
        items = [each.items_per_s for each in self.rounds]
        ours = median(each.items_per_s for each in reference.rounds)
        our_ms = median(each.cpu_ms for each in reference.rounds)
        cpu_ms = median(each.cpu_ms for each in self.rounds)
        return {
            **about,
            "connections": self.connections,
            "items_per_s": round(median(items)),
            "items_per_s_range": [round(min(items)), round(max(items))],
            "requests_per_s": round(median(each.requests_per_s for each in self.rounds), 1),
            "cpu_ms": round(cpu_ms, 3),
            "ratio": round(ours / median(items), 2),
            "cpu_ratio": round(cpu_ms / our_ms, 2),
            "largest_score_difference": self.largest_score_difference,
        }


def peers(
    workload: Annotated[Path, typer.Option(help="Directory of the workload")] = Path(
        ".data/feed200"
    ),
    environments: Annotated[Path, typer.Option(help="Directory of the peers' environments")] = Path(
        ".data/peers"
    ),
    results: Annotated[Path, typer.Option(help="Where peers.json goes")] = Path("loadtest/results"),
    readme: Annotated[Path, typer.Option(help="The file whose table is written")] = Path(
        "README.md"
    ),
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement")] = 3.0,
    only: Annotated[list[str] | None, typer.Option(help="These peers alone, by name")] = None,
) -> None:
    """Measure multirank beside what else a user could pick."""
    about = circumstances()
    report.show_circumstances(about)
    try:
        with testbed(workload) as bed:
            ours = Contestant("multirank", str(about["commit"]), "1 worker")
            ours.largest_score_difference = bed.check_same_network()
            found = _measure(bed, ours, _chosen(only), environments, rounds, seconds)
    except (BuildFailed, ServiceFailed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    outcome = {**about, "candidates": CANDIDATES, "cache": "warm", "rounds": rounds}
    outcome["results"] = [each.result(ours) for each in (ours, *found)]
    results.mkdir(parents=True, exist_ok=True)
    (results / "peers.json").write_text(json.dumps(outcome, indent=1) + "\n")
    report.write_table(readme, outcome)
    print(json.dumps(report.last_line(outcome)), flush=True)


def _chosen(only: Sequence[str] | None) -> list[Product]:
    known = {product.name: product for product in PRODUCTS}
    if unknown := set(only or ()) - set(known):
        raise typer.BadParameter(f"--only: {', '.join(unknown)}; there are {', '.join(known)}")
    return [product for product in PRODUCTS if not only or product.name in only]


def _measure(
    bed: Testbed,
    ours: Contestant,
    products: Sequence[Product],
    root: Path,
    rounds: int,
    seconds: float,
) -> list[Contestant]:
    """All in turn, `rounds` times; a peer is started for each of its turns and stopped after it."""
    requests = Feed(seed=1).draw(_POOL, CANDIDATES)
    found: list[Contestant] = []
    installed: dict[str, Environment] = {}
    for product in products:
        contestant = Contestant(product.name, "", product.settings)
        found.append(contestant)
        report.say(f"{product.name}: environment")
        try:
            made = environment(product.requirements, product.main, root)
        except Unavailable as reason:
            contestant.unavailable = str(reason)
            report.say(f"{product.name}: {reason}")
        else:
            installed[product.name] = made
            contestant.version = made.version
    service = bed.warm()
    tried = best_connections(service, CANDIDATES, seconds / 4)
    ours.connections = max(tried, key=tried.__getitem__)
    for number in range(rounds):
        service.warm()
        ours.rounds.append(service.round(CANDIDATES, ours.connections, seconds))
        report.say(f"round {number + 1}: multirank {ours.rounds[-1].items_per_s:,.0f} items/s")
        for product, contestant in zip(products, found, strict=True):
            if contestant.unavailable is None:
                try:
                    with running(product, installed[product.name], bed, requests) as peer:
                        _turn(peer, contestant, bed, requests, seconds)
                except Unavailable as reason:
                    contestant.unavailable = str(reason)
                    report.say(f"{product.name}: {reason}")
                else:
                    items = contestant.rounds[-1].items_per_s
                    report.say(f"round {number + 1}: {product.name} {items:,.0f} items/s")
            pause(0)
    return found


def _turn(
    peer: Peer, contestant: Contestant, bed: Testbed, requests: Sequence[Prepared], seconds: float
) -> None:
    if not contestant.rounds:
        contestant.largest_score_difference = peer.largest_difference(bed, requests[:_CHECKS])
        tried = best_connections(peer, CANDIDATES, seconds / 4)
        contestant.connections = max(tried, key=tried.__getitem__)
    contestant.rounds.append(peer.round(CANDIDATES, contestant.connections, seconds))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(peers)

if __name__ == "__main__":
    end_between_steps()
    app()
