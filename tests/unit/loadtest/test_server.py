"""Server: a process that is waited for, watched and stopped, whatever it does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loadtest.server import ServiceFailed, serving

_SCRIPT = """
import http.server, json, sys

states = sys.argv[1].split(",")
assert sys.argv[2:] == ["--models", "somewhere", "--host", "127.0.0.1", "--port", "0"]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.path == "/models"
        state = states.pop(0) if len(states) > 1 else states[0]
        versions = [{"version": 1, "state": state, "reason": "a byte is wrong"}]
        others = [{"version": 1, "state": "ready", "reason": None}]
        shop, news = {"name": "shop", "versions": versions}, {"name": "news", "versions": others}
        body = json.dumps({"models": [news, shop]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(f"running on http://127.0.0.1:{server.server_port} (Press CTRL+C)", flush=True)
server.serve_forever()
"""


def server(*states: str) -> tuple[str, ...]:
    """A service whose model goes through these states, one a question."""
    return (sys.executable, "-c", _SCRIPT, ",".join(states))


READY = server("found", "loading", "ready")
MODELS = Path("somewhere")


def test_is_handed_out_when_ready_and_stopped_at_the_end(tmp_path: Path) -> None:
    with serving(MODELS, "shop", tmp_path / "log", READY) as service:
        assert service.url.startswith("http://127.0.0.1:")
        service.check()

    assert service.process.returncode == -15
    assert (tmp_path / "log").read_text().count("GET /models") == 3


def test_is_stopped_when_its_user_fails(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        serving(MODELS, "shop", tmp_path / "log", READY) as service,
    ):
        raise ZeroDivisionError

    assert service.process.returncode == -15


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit('MULTIRANK_PORT: not a port')")
    with (
        pytest.raises(
            ServiceFailed, match=r"(?s)ended by itself with 1.*MULTIRANK_PORT: not a port"
        ),
        serving(MODELS, "shop", tmp_path / "log", command),
    ):
        pass


def test_one_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    def kill_while_serving() -> None:
        with serving(MODELS, "shop", tmp_path / "log", READY) as service:
            service.process.kill()
            service.process.wait()

    with pytest.raises(ServiceFailed, match="ended by itself with -9"):
        kill_while_serving()


def test_a_model_that_is_refused_is_not_waited_for(tmp_path: Path) -> None:
    with (
        pytest.raises(ServiceFailed, match="shop version 1 was refused: a byte is wrong"),
        serving(MODELS, "shop", tmp_path / "log", server("loading", "refused")),
    ):
        pass


@pytest.mark.parametrize(("model", "found"), [("shop", "loading"), ("weather", "no weather")])
def test_one_that_never_gets_ready_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, found: str
) -> None:
    monkeypatch.setattr("loadtest.server._START_TIMEOUT_S", 1.0)
    with (
        pytest.raises(ServiceFailed, match=f"not ready after 1 s: {found}"),
        serving(MODELS, model, tmp_path / "log", server("loading")),
    ):
        pass
