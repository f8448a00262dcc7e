"""Commands in the bytes that Redis takes (RESP); ids become part of them without a text of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from service.features.store import Asked
from service.values import Keys


@dataclass(frozen=True, slots=True)
class Command:
    """What is sent, and what must come back.

    Attributes:
        sent: one command, or several. values: how many values there will be.
        one_by_one: each is an answer of its own; else they are all in one.
    """

    sent: bytes
    values: int
    one_by_one: bool


def mget(asked: Sequence[Asked]) -> Command:
    """One MGET of all keys; there is at least one."""
    pieces = [b""]
    for prefix, ids in asked:
        pieces += _keys(prefix, ids)
    keys = len(pieces) - 1
    pieces[0] = b"*%d\r\n$4\r\nMGET" % (keys + 1)
    pieces.append(b"")
    return Command(b"\r\n".join(pieces), keys, one_by_one=False)


def gets(asked: Sequence[Asked]) -> Command:
    """A GET of each key, sent together: what a Cluster takes of keys in different slots."""
    keys = [key for prefix, ids in asked for key in _keys(prefix, ids)]
    sent = b"".join([b"*2\r\n$3\r\nGET\r\n%s\r\n" % key for key in keys])
    return Command(sent, len(keys), one_by_one=True)


def _keys(prefix: str, ids: Keys) -> list[bytes]:
    if not len(ids):
        return []
    if isinstance(ids, np.ndarray):
        tails = orjson.dumps(ids, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    else:
        tails = [each.encode() for each in ids]
    start = prefix.encode()
    heads = {n: b"$%d\r\n%s" % (len(start) + n, start) for n in set(map(len, tails))}
    return [heads[len(tail)] + tail for tail in tails]
