"""The echo model with its rows in a Redis of our own, and the command that serves it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.chaos.echo_model import MODEL, publish_echo
from loadtest.chaos.redis_under_test import PASSWORD, USER, RedisUnderTest
from loadtest.redis_server import load_features


@contextmanager
def echo_redis(scratch: Path) -> Iterator[tuple[Path, RedisUnderTest]]:
    """Publish the model, start a Redis and load all rows.

    Yields:
        The directory of models, and the Redis.

    Raises:
        ServiceFailed: Redis did not start, or the rows could not be loaded.
    """
    models = scratch / "models"
    publish_echo(models, scratch)
    redis = RedisUnderTest(scratch)
    redis.start()
    try:
        load_features(f"redis://127.0.0.1:{redis.port}/0", models, MODEL)
        redis.keep_rows()
        yield models, redis
    finally:
        redis.client.close()
        redis.kill()


def serve_command(redis_port: int, *options: str, **settings: object) -> tuple[str, ...]:
    """`multirank serve`, with the rows of that Redis.

    Args:
        settings: field names of the service's settings.
    """
    url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{redis_port}/0"
    given = {"redis_url": url, **settings}
    variables = (f"MULTIRANK_{name.upper()}={value}" for name, value in given.items())
    return ("env", *variables, sys.executable, "-m", "multirank", "serve", *options)
