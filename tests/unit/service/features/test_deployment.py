"""URLs of deployments: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.features.deployment import DeploymentInvalid, parse_deployment


@pytest.mark.parametrize(
    ("url", "kind", "nodes", "master"),
    [
        ("redis://localhost", "server", (), ""),
        ("rediss://u:p@h:1/2?ssl_check_hostname=no", "server", (), ""),
        ("redis://:p@:h@[::1]:1/", "server", (), ""),
        ("unix:///run/redis.sock?db=1", "server", (), ""),
        ("redis+sentinel://a/feed", "sentinel", (("a", 26379),), "feed"),
        ("rediss+sentinel://u:p@a:1,b:2/feed/3", "sentinel", (("a", 1), ("b", 2)), "feed"),
        ("redis+cluster://a:1,b", "cluster", (("a", 1), ("b", 6379)), ""),
        ("redis+cluster://[::1]:1", "cluster", (("::1", 1),), ""),
        ("rediss+cluster://:p@a:1?ssl_cert_reqs=none", "cluster", (("a", 1),), ""),
    ],
)
def test_what_a_url_means(url: str, kind: str, nodes: tuple[object, ...], master: str) -> None:
    deployment = parse_deployment(url)
    assert (deployment.kind, deployment.nodes, deployment.master) == (kind, nodes, master)


def test_login_database_and_tls_reach_the_connections(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    url = f"rediss+sentinel://u:p%40@a:1/feed/3?ssl_ca_certs={ca}&sentinel_password=s"
    client: Any = parse_deployment(url).client()
    pool = client.connection_pool
    given = pool.connection_kwargs
    assert (given["username"], given["password"], given["db"]) == ("u", "p@", 3)
    assert given["ssl_ca_certs"] == str(ca)
    (sentinel,) = pool.sentinel_manager.sentinels
    given = sentinel.connection_pool.connection_kwargs
    assert (given["password"], given["ssl_ca_certs"]) == ("s", str(ca))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost", r"expected redis://"),
        ("localhost:6379", r"expected redis://"),
        ("", r"expected redis://"),
        ("unix://", r"expected redis://.*unix:///path"),
        ("redis://h/three", r"expected redis://.*db is a number"),
        ("redis://h/0/1", r"expected redis://.*db is a number"),
        ("redis://h:port/0", r"expected redis://.*:port"),
        ("redis://h:99999/0", "out of range"),
        (f"redis://{'h' * 64}/0", "label"),
        (f"redis+cluster://{'h' * 64}:1", "label"),
        ("redis://:secret#@h/0", "%23"),
        ("redis://:/secret@h/0", "%2F"),
        ("redis://h/0?protocol=3", "no parameter protocol; there are db"),
        ("redis://h/0?ssl_ca_cert=x", "ssl_ca_cert"),
        ("rediss://h/0?ssl_ca_certs=/none.pem", "ssl_ca_certs: there is no /none.pem"),
        ("redis+sentinel://h:1/feed?color=red", "no parameter color"),
        ("redis+sentinel://h:70000/feed", "expected host:port, got 'h:70000'"),
        ("redis+ring://localhost", r"expected redis://.*redis\+cluster://"),
        ("redis+sentinel://a:1", "master's name"),
        ("redis+cluster://a:1/0", "no databases"),
        ("redis+cluster://a:b", "expected host:port, got 'a:b'"),
        ("redis+cluster://:secret@a:b", "expected host:port, got 'a:b'"),
    ],
)
def test_what_means_nothing(url: str, says: str) -> None:
    with pytest.raises(DeploymentInvalid, match=says) as caught:
        parse_deployment(url)
    assert "secret" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(parse_deployment("redis+cluster://:secret@a:1"))
