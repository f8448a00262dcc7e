"""Commands in the bytes that Redis takes (RESP); ids become part of them without a text of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from service.features.store import Asked
from service.values import Keys


def mget(asked: Sequence[Asked]) -> bytes:
    """One MGET of all keys; there is at least one."""
    pieces = [b""]
    for prefix, ids in asked:
        pieces += _keys(prefix, ids)
    pieces[0] = b"*%d\r\n$4\r\nMGET" % len(pieces)
    pieces.append(b"")
    return b"\r\n".join(pieces)


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
