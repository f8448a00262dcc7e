"""The ten ways to fail. A case breaks something and mends it; what must hold is always the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from loadtest.chaos.driver import Driver
from loadtest.chaos.echo_model import older_row
from loadtest.chaos.proxy import Proxy
from loadtest.chaos.redis_under_test import PASSWORD, RedisUnderTest
from loadtest.server import pause

_BAD_ITEMS = range(1, 76)
_SLOWER_S = 0.1
_SHOWN_WITHIN_S = 20.0
_CHANGES_PER_S = 2.0
_CHANGE_S = 1.2


@dataclass(frozen=True)
class Bed:
    """What a case acts on.

    Attributes:
        seconds: how long what is broken stays so.
        pause_s: how long Redis is paused in the case that pauses it.
    """

    redis: RedisUnderTest
    proxy: Proxy
    driver: Driver
    seconds: float
    pause_s: float

    def hold(self) -> None:
        """Leave it broken for `seconds`, and on a slow machine until answers have shown it."""
        pause(self.seconds)
        give_up = time.monotonic() + _SHOWN_WITHIN_S
        while not self.driver.record.degraded and time.monotonic() < give_up:
            pause(0.05)


@dataclass(frozen=True)
class Case:
    """One failure.

    Attributes:
        fail: breaks, waits, mends; when it returns, the service could have its features again.
        degrades: whether answers must be degraded meanwhile: else nothing was broken.
    """

    name: str
    fail: Callable[[Bed], None]
    degrades: bool = True


def _killed(bed: Bed) -> None:
    bed.redis.kill()
    bed.hold()
    bed.redis.start()
    bed.redis.restore()


def _restarted_empty(bed: Bed) -> None:
    bed.redis.kill()
    bed.redis.start()
    bed.hold()
    bed.redis.restore()


def _paused(bed: Bed) -> None:
    bed.redis.command("CLIENT", "PAUSE", int(bed.pause_s * 1000), "ALL")
    bed.redis.client.ping()  # answered when the pause is over


def _slower_network(bed: Bed) -> None:
    bed.proxy.delay_s = _SLOWER_S
    bed.hold()
    bed.proxy.delay_s = 0.0


def _resets(bed: Bed) -> None:
    bed.proxy.resets = True
    bed.hold()
    bed.proxy.resets = False


def _wrong_password(bed: Bed) -> None:
    bed.redis.set_password("another")
    bed.redis.drop_connections()
    bed.hold()
    bed.redis.set_password(PASSWORD)


def _maxmemory(bed: Bed) -> None:
    client = bed.redis.client
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", str(int(used * 0.8)))
    bed.hold()
    client.config_set("maxmemory", "0")
    bed.redis.restore()


def _corrupt_rows(bed: Bed) -> None:
    whole = bed.redis.kept_items(_BAD_ITEMS)
    flipped = {n: row[:-1] + bytes([row[-1] ^ 1]) for n, row in whole.items()}
    bed.redis.write_items({n: row if n % 2 else row[:40] for n, row in flipped.items()})
    bed.hold()
    bed.redis.write_items(whole)


def _older_schema(bed: Bed) -> None:
    bed.redis.write_items(dict.fromkeys(_BAD_ITEMS, older_row()))
    bed.hold()
    bed.redis.write_items(bed.redis.kept_items(_BAD_ITEMS))


def _tracking_lost(bed: Bed) -> None:
    for change in range(1, max(2, int(_CHANGES_PER_S * bed.seconds))):
        with bed.driver.writing(float(change)):
            bed.redis.set_value(float(change))
        pause(_CHANGE_S)


CASES = (
    Case("killed_under_load", _killed),
    Case("killed_and_restarted_empty", _restarted_empty),
    Case("paused", _paused),
    Case("network_100_ms_slower", _slower_network),
    Case("resets_midway_through_an_answer", _resets),
    Case("wrong_password", _wrong_password),
    Case("maxmemory_reached", _maxmemory),
    Case("corrupt_rows", _corrupt_rows),
    Case("rows_of_an_older_schema", _older_schema),
    Case("tracking_lost_while_a_feature_changes", _tracking_lost, degrades=False),
)
