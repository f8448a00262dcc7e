"""Each module is one peer's server; it listens on 127.0.0.1 at PEER_PORT and answers POST /rank."""

from __future__ import annotations

import os


def port() -> int:
    """Where to listen."""
    return int(os.environ["PEER_PORT"])
