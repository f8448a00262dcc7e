"""Where Redis is: one URL -> clients, be it a server, the master that Sentinel names, or a Cluster.

    redis://  rediss://  unix://                          as redis-py takes them
    redis+sentinel://[user:password@]host:port,.../master[/db]          rediss+sentinel:// with TLS
    redis+cluster://[user:password@]host:port,...                       rediss+cluster:// with TLS

Parameters of redis-py's connections may follow, as far as `_PARAMETERS` has them
(`?ssl_ca_certs=ca.pem`), and for Sentinels with a password of their own `sentinel_username` and
`sentinel_password`. Valkey speaks the same protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import parse_qs, urlsplit

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.cluster import ClusterNode
from redis.connection import Connection, SSLConnection, parse_url
from redis.sentinel import Sentinel

Address = tuple[str, int]
Client = redis.Redis | redis.RedisCluster
AsyncClient = redis.asyncio.Redis | redis.asyncio.RedisCluster

_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?P<login>[^@/?]*@)?(?P<nodes>[^/?]+)"
    r"(?:/(?P<master>[^/?]+))?(?:/(?P<db>\d+))?(?P<query>\?.*)?"
)
_SERVER = re.compile(r"([^/?#]*@)?(\[[^/?#@]*\]|[^/?#@:]*)(:\d*)?(/\d*)?(\?.*)?")
_PARAMETERS = re.compile(
    r"db|username|password|client_name|socket_\w+|health_check_interval|ssl_\w+|"
    r"sentinel_(username|password)"
)
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_PORTS = range(1, 1 << 16)
_SCHEMES = (
    "redis://host:port/db, rediss://, unix:///path, redis+sentinel://host:port,.../master, "
    "redis+cluster://host:port"
)


class DeploymentInvalid(ValueError):
    """The URL names no Redis; the message says what it should look like. It has no password."""


@dataclass(frozen=True)
class Deployment:
    """A parsed URL.

    Attributes:
        nodes: the Sentinels, or nodes of the Cluster, that the URL names; of a server none.
        master: the name that Sentinels know it by.
    """

    kind: Literal["server", "sentinel", "cluster"]
    nodes: tuple[Address, ...]
    master: str
    _url: str = field(repr=False)
    _options: dict[str, Any] = field(repr=False)

    def client(self) -> Client:
        """A client that blocks, for commands and jobs."""
        if self.kind == "server":
            return redis.Redis.from_url(self._url)
        if self.kind == "cluster":
            nodes = [cast("Any", ClusterNode)(*node) for node in self.nodes]
            return redis.RedisCluster(startup_nodes=nodes, **self._options)
        sentinel = cast("Any", Sentinel)(self.nodes, **self._sentinel_options({}))
        return cast("redis.Redis", sentinel.master_for(self.master))

    def async_client(self, **options: Any) -> AsyncClient:
        """A client for the service; `options` are those of redis-py's connections."""
        if self.kind == "cluster":
            nodes = [AsyncClusterNode(*node) for node in self.nodes]
            return redis.asyncio.RedisCluster(startup_nodes=nodes, **self._options, **options)
        return self.async_node(None, **options)

    def async_node(self, address: Address | None, **options: Any) -> redis.asyncio.Redis:
        """A client of one node of a Cluster; of the server or master without an address."""
        if address is not None:
            host, port = address
            return redis.asyncio.Redis(host=host, port=port, **self._options, **options)
        if self.kind == "server":
            return redis.asyncio.Redis.from_url(self._url, **options)
        sentinel = cast("Any", AsyncSentinel)(self.nodes, **self._sentinel_options(options))
        return cast("redis.asyncio.Redis", sentinel.master_for(self.master, _AsyncMaster))

    def _sentinel_options(self, options: dict[str, Any]) -> dict[str, Any]:
        given = {**self._options, **options}
        own = {k.removeprefix("sentinel_"): given.pop(k) for k in list(given) if "sentinel_" in k}
        shared = {k: v for k, v in given.items() if k.startswith(("ssl", "socket_"))}
        return {**given, "sentinel_kwargs": {**shared, **own}}


class _AsyncMaster(redis.asyncio.Redis):
    """A client that closes the connections to its Sentinels as well."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await cast("Any", self.connection_pool).sentinel_manager.aclose()


def parse_deployment(url: str) -> Deployment:
    """Parse a URL; raises DeploymentInvalid."""
    try:
        return _parse(url)
    except ValueError as error:
        raise DeploymentInvalid(f"not the URL of a Redis: {error}") from error


def _parse(url: str) -> Deployment:
    several = _SEVERAL.fullmatch(url)
    if several is None:
        scheme, _, rest = url.partition("://")
        if scheme not in ("redis", "rediss", "unix") or (scheme == "unix" and rest[:1] != "/"):
            raise ValueError(f"expected {_SCHEMES}")
        if scheme != "unix" and not re.fullmatch(_SERVER, rest):
            raise ValueError(
                f"expected {scheme}://user:password@host:port/db, where db is a number and "
                "the password has %23, %2F and %3F for #, / and ?"
            )
        return Deployment("server", (), "", url, _options(url))
    kind = cast("Literal['sentinel', 'cluster']", several["kind"])
    if kind == "sentinel" and not several["master"]:
        raise ValueError("after the Sentinels comes the master's name: redis+sentinel://.../master")
    if kind == "cluster" and (several["master"] or several["db"]):
        raise ValueError("a Cluster has no databases: leave the path out")
    nodes = tuple(
        _address(node, 26379 if kind == "sentinel" else 6379)
        for node in several["nodes"].split(",")
    )
    path = f"/{several['db']}" if several["db"] else ""
    one = f"{several['scheme']}://{several['login'] or ''}host{path}{several['query'] or ''}"
    options = _options(one)
    del options["host"]
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return Deployment(kind, nodes, several["master"] or "", url, options)


def _options(url: str) -> dict[str, Any]:
    """What a URL of one server gives its connections, checked as far as that goes without it."""
    parse: Callable[[str], dict[str, Any]] = cast("Any", parse_url)
    options = parse(url)
    options.get("host", "").encode("idna")  # or no resolver takes it
    for name in parse_qs(urlsplit(url).query, keep_blank_values=True):
        if not _PARAMETERS.fullmatch(name):
            raise ValueError(f"no parameter {name}; there are {_PARAMETERS.pattern}")
        if name in _FILES and not Path(options[name]).exists():
            raise ValueError(f"{name}: there is no {options[name]}")
    given = {name: value for name, value in options.items() if "sentinel_" not in name}
    try:
        cast("Any", given.pop("connection_class", Connection))(**given)
    except (TypeError, redis.RedisError) as error:
        raise ValueError(str(error)) from error
    return options


def _address(node: str, default_port: int) -> Address:
    host, colon, port = node.rpartition(":")
    if not colon:
        return node, default_port
    if not host or not port.isdigit() or int(port) not in _PORTS:
        raise ValueError(f"expected host:port, got {node!r}")
    host.encode("idna")
    return host.strip("[]"), int(port)
