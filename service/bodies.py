"""Bodies: read up to a limit; in two forms, JSON and msgpack: one schema, two encodings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import ormsgpack
from starlette.types import Receive

from service.errors import BodyTooLarge


@dataclass(frozen=True)
class BodyFormat:
    """How bodies of one media type are read and written.

    Attributes:
        loads: bytes -> objects; raises ValueError, saying where.
        dumps: objects, numpy arrays among them, -> bytes.
    """

    name: str
    media_type: bytes
    loads: Callable[[bytes], Any]
    dumps: Callable[[Mapping[str, Any]], bytes]


def _json(answer: Mapping[str, Any]) -> bytes:
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _msgpack(answer: Mapping[str, Any]) -> bytes:
    return ormsgpack.packb(answer, option=ormsgpack.OPT_SERIALIZE_NUMPY)


JSON = BodyFormat("JSON", b"application/json", orjson.loads, _json)
MSGPACK = BodyFormat("msgpack", b"application/msgpack", ormsgpack.unpackb, _msgpack)


def format_of(media_type: bytes) -> BodyFormat | None:
    """The format of a Content-Type or Accept header; None when it is another."""
    named = media_type.partition(b";")[0].strip().lower()
    for each in (JSON, MSGPACK):
        if named == each.media_type:
            return each
    return None


def numbers(values: npt.NDArray[np.floating[Any]]) -> Any:
    """One or more columns of an answer: as they are, or lists with null for what is not finite."""
    return values if np.isfinite(values).all() else listed(values)


def listed(values: npt.NDArray[np.floating[Any]]) -> list[Any]:
    """An array as (nested) lists, with null for what is not finite."""
    finite = np.isfinite(values)
    plain: npt.NDArray[Any] = values
    if not finite.all():
        plain = values.astype(object)
        plain[~finite] = None
    result: list[Any] = plain.tolist()
    return result


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


async def read_body(receive: Receive, most_bytes: int) -> bytes:
    """The whole body of a request.

    Raises:
        BodyTooLarge: it has more bytes; the rest is not read.
        ClientLeft: its client did not wait for an answer.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most_bytes:
            raise BodyTooLarge(f"the body has more than {most_bytes} bytes")
        more = message.get("more_body", False)
    return b"".join(parts)
