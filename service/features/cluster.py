"""Which node of a Cluster has which slots, and which slot a key has."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import redis
from redis.crc import key_slot
from redis.exceptions import ClusterError

from service.features.deployment import Address, Deployment
from service.features.keys import keys_of
from service.features.store import Node, Places
from service.values import Keys

_SLOTS = 16384
_NOBODY = -1


class Slots:
    """The slots of a Cluster as one of its nodes knew them.

    Attributes:
        primaries: the nodes that have any, by name.
    """

    def __init__(self, ranges: Sequence[tuple[int, int, Address]]) -> None:
        self.primaries: dict[Node, Address] = {
            f"{host}:{port}": (host, port) for _, _, (host, port) in ranges
        }
        self._names = list(self.primaries)
        self._owner: npt.NDArray[np.int64] = np.full(_SLOTS, _NOBODY)
        for first, last, (host, port) in ranges:
            self._owner[first : last + 1] = self._names.index(f"{host}:{port}")

    def nodes_of(self, prefix: str, ids: Keys) -> list[tuple[Node, Places]]:
        """The nodes of keys, and the places of each one's; "" of slots that nobody has."""
        owners = self._owner[_slots_of(prefix, ids)]
        found = np.unique(owners).tolist()
        names = {each: "" if each == _NOBODY else self._names[each] for each in found}
        return [(names[each], np.flatnonzero(owners == each)) for each in found]


def _slots_of(prefix: str, ids: Keys) -> npt.NDArray[np.int64]:
    keys = [key.encode() for key in keys_of(prefix, ids)]
    # a part in braces, where there is one, is all that counts
    slots = [key_slot(key) if b"{" in key else crc_hqx(key, 0) % _SLOTS for key in keys]
    return np.array(slots, np.int64)


async def slots_of(deployment: Deployment, options: dict[str, Any]) -> Slots:
    """The slots now, as the first node that answers knows them; raises redis.RedisError."""
    problem: Exception = ClusterError("the URL names no node")
    for host, port in deployment.nodes:
        try:
            async with deployment.async_node((host, port), **options) as node:
                ranges: list[Any] = await cast("Any", node).execute_command("CLUSTER SLOTS")
        except (redis.RedisError, OSError, TimeoutError, RuntimeError) as error:
            problem = error
            continue
        return Slots(
            [
                (first, last, ((primary[0] or b"").decode() or host, primary[1]))
                for first, last, primary, *_replicas in ranges
            ]
        )
    raise problem
