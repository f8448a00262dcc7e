"""Who may change what is served, and the trace that each change leaves in the log."""

from __future__ import annotations

import hmac
import logging
from typing import Annotated

import orjson
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from service.errors import AdminDisabled, Unauthorized, UnsupportedMediaType

log = logging.getLogger(__name__)
_audit = logging.getLogger("multirank.audit")
_audit.setLevel(logging.INFO)  # whatever the log level: a change leaves its line

_MOST_NAME = 128
_bearer = HTTPBearer(auto_error=False, description="MULTIRANK_ADMIN_TOKEN")


class Access:
    """A dependency of every /admin route: lets in who knows the token.

    Args:
        token: unset, nobody is let in.
    """

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token

    async def __call__(
        self,
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        """Let a request in.

        Raises:
            AdminDisabled: no token is set.
            Unauthorized: another token was given, or none.
        """
        if self._token is None:
            raise AdminDisabled(
                "/admin is off: the operator can set MULTIRANK_ADMIN_TOKEN and restart"
            )
        if len(request.headers.getlist("authorization")) > 1:
            raise Unauthorized("send one header Authorization, not several")
        if given is None:
            raise Unauthorized("send the header Authorization: Bearer <MULTIRANK_ADMIN_TOKEN>")
        expected = self._token.get_secret_value().encode()
        if not hmac.compare_digest(given.credentials.encode(), expected):
            log.warning("admin: a wrong token from %s", _address(request))
            raise Unauthorized("this is not the token of MULTIRANK_ADMIN_TOKEN")


async def json_only(request: Request) -> None:
    """A dependency: FastAPI would take the JSON of a body that says to be something else for text.

    Raises:
        UnsupportedMediaType: there is a body, and it is not said to be JSON.
    """
    sent = request.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
    if sent != "application/json" and await request.body():
        raise UnsupportedMediaType(f"content-type {sent!r}; send application/json")


def operator(request: Request) -> str:
    """Who asks: the `From` header (RFC 9110, 10.1.2), if there is one, and the address."""
    name = request.headers.get("from", "")[:_MOST_NAME]
    return f"{name} ({_address(request)})" if name else _address(request)


def audit(who: str, what: str, before: object, after: object) -> None:
    """Leave one line in the log, as JSON: who changed what, from what, to what."""
    line = {"who": who, "what": what, "before": before, "after": after}
    _audit.info("audit %s", orjson.dumps(line).decode())


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown address"
