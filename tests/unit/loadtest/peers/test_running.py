"""A peer is started, checked, loaded and stopped; one that fails says why. Real processes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import psutil
import pytest

from loadtest.peers import running as running_room
from loadtest.peers.environments import Environment, Unavailable
from loadtest.peers.products import PRODUCTS, Product
from loadtest.peers.running import running
from loadtest.pinned import cores
from loadtest.prepared import TASKS, Feed

_SERVER = """
import json, os, sys, subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        ids = json.loads(self.rfile.read(int(self.headers["content-length"])))["candidates"]["ids"]
        scores = [i / 10000 for i in ids]
        body = json.dumps({"ids": ids[:LEFT], "scores": scores, "degraded": None,
                           "tasks": dict.fromkeys(("click", "like", "share"), scores)}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
HTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
"""


class Scripted(Product):
    """A product that is a script."""

    name, requirements, main, settings = "Scripted", "scripted", "scripted", ""

    def __init__(self, script: str) -> None:
        self._script = script

    def command(self, environment: Environment, port: int, scratch: Path) -> list[str]:
        return [sys.executable, "-c", self._script]


@pytest.fixture
def bed(tmp_path: Path) -> Any:
    """What `running` wants of a test bed; the reference scores are an item's id over 10,000."""

    def scores(request: bytes) -> list[list[float]]:
        ids = orjson.loads(request)["candidates"]["ids"]
        return [[item / 10_000] * len(TASKS) for item in ids]

    return SimpleNamespace(
        core=cores()[1],
        scratch=tmp_path,
        workload=SimpleNamespace(bundle=tmp_path, undivided=tmp_path / "graph"),
        redis_url="redis://nowhere",
        bare=SimpleNamespace(scores=scores),
    )


REQUESTS = Feed(seed=0).draw(20, 30)
HERE = Environment(Path(sys.prefix), "1")


def test_a_peer_is_checked_and_loaded_and_leaves_nothing(bed: Any) -> None:
    product = Scripted(_SERVER.replace("LEFT", "None"))
    with running(product, HERE, bed, REQUESTS) as peer:
        started = psutil.Process(peer._pid).children()
        assert len(started) == 1
        assert peer.largest_difference(bed, REQUESTS[:3]) < 1e-6
        found = peer.round(30, 1, 0.2)
    assert found.outcomes["ok"] == found.outcomes.total() > 0
    assert found.items_per_s == pytest.approx(30 * found.requests_per_s)
    _, alive = psutil.wait_procs(started, 10)
    assert not alive


def test_scores_of_another_network_are_refused(bed: Any) -> None:
    bed.bare.scores = lambda request: np.ones((30, 3)).tolist()
    with (
        running(Scripted(_SERVER.replace("LEFT", "None")), HERE, bed, REQUESTS) as peer,
        pytest.raises(Unavailable, match=r"its scores are 0\.9.* from those of the graph"),
    ):
        peer.largest_difference(bed, REQUESTS[:1])


def test_wrong_answers_are_refused(bed: Any) -> None:
    with (
        running(Scripted(_SERVER.replace("LEFT", "5")), HERE, bed, REQUESTS) as peer,
        pytest.raises(Unavailable, match=r"wrong answers: \{'wrong': "),
    ):
        peer.round(30, 1, 0.1)


def test_a_peer_that_ends_says_why(bed: Any) -> None:
    script = "import sys; print('so far so good'); raise RuntimeError('no such file')"
    with (
        pytest.raises(Unavailable, match="ended with 1: RuntimeError: no such file"),
        running(Scripted(script), HERE, bed, REQUESTS),
    ):
        raise AssertionError("it was handed out")


def test_a_peer_that_never_answers_is_given_up(bed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_room, "_START_S", 1.0)
    with (
        pytest.raises(Unavailable, match=r"not ready after 1 s: .*refused"),
        running(Scripted("import time; time.sleep(60)"), HERE, bed, REQUESTS),
    ):
        raise AssertionError("it was handed out")


def test_triton_is_asked_in_binary_tensors() -> None:
    (triton,) = (product for product in PRODUCTS if product.name == "Triton")
    request = REQUESTS[0]
    head, _, body = triton.message(request).message.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v2/models/rank/infer HTTP/1.1"
    headers = dict(line.split(": ") for line in lines[1:])
    assert int(headers["Content-Length"]) == len(body)
    described = orjson.loads(body[: (size := int(headers["Inference-Header-Content-Length"]))])
    asked = orjson.loads(request.message.partition(b"\r\n\r\n")[2])
    expected = [[asked["user"]["id"]], list(asked["context"].values()), asked["candidates"]["ids"]]
    for tensor, values in zip(described["inputs"], expected, strict=True):
        length = tensor["parameters"]["binary_data_size"]
        assert np.frombuffer(body[size : size + length], "<i8").tolist() == values
        size += length
    assert size == len(body)
    answer = b'{"model_name":"rank","outputs":[]}\x10\x00\x00\x00{"ids":[1]}'
    assert orjson.loads(triton.body(answer)) == {"ids": [1]}
