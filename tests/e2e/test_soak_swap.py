"""`make soak-swap`, much shorter: swaps under load, nothing failed, nothing mixed."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.published import MODEL, ModelsDirectory
from tests.servers import environment


def test_a_short_soak(models_dir: ModelsDirectory) -> None:
    command = [sys.executable, "-m", "loadtest.soak_swap"]
    options = {
        "--models": models_dir.path,
        "--model": MODEL,
        "--swaps": 4,
        "--period-s": 2.5,
        "--candidates": 20,
        "--share": 0.2,
    }
    command += [str(part) for option in options.items() for part in option]
    ended = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=150, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["swaps"], found["failed"], found["mixed"]) == (4, 0, 0)
    assert found["requests"] == found["outcomes"]["ok"] > 50
    assert found["rss_last_over_10"] > 0
