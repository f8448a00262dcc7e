"""URLs of deployments: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from service.features.deployment import DeploymentInvalid, parse_deployment


@pytest.mark.parametrize(
    ("url", "kind", "nodes", "master"),
    [
        ("redis://localhost", "server", (), ""),
        ("rediss://u:p@h:1/2?ssl_ca_certs=ca.pem", "server", (), ""),
        ("unix:///run/redis.sock?db=1", "server", (), ""),
        ("redis+sentinel://a/feed", "sentinel", (("a", 26379),), "feed"),
        ("rediss+sentinel://u:p@a:1,b:2/feed/3", "sentinel", (("a", 1), ("b", 2)), "feed"),
        ("redis+cluster://a:1,b", "cluster", (("a", 1), ("b", 6379)), ""),
        ("rediss+cluster://:p@a:1?ssl_cert_reqs=none", "cluster", (("a", 1),), ""),
    ],
)
def test_what_a_url_means(url: str, kind: str, nodes: tuple[object, ...], master: str) -> None:
    deployment = parse_deployment(url)
    assert (deployment.kind, deployment.nodes, deployment.master) == (kind, nodes, master)


def test_login_database_and_tls_reach_the_connections() -> None:
    url = "rediss+sentinel://u:p%40@a:1/feed/3?ssl_ca_certs=ca.pem&sentinel_password=s"
    client: Any = parse_deployment(url).client()
    pool = client.connection_pool
    given = pool.connection_kwargs
    assert (given["username"], given["password"], given["db"]) == ("u", "p@", 3)
    assert given["ssl_ca_certs"] == "ca.pem"
    (sentinel,) = pool.sentinel_manager.sentinels
    given = sentinel.connection_pool.connection_kwargs
    assert (given["password"], given["ssl_ca_certs"]) == ("s", "ca.pem")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost", "one of the following schemes"),
        ("localhost:6379", "one of the following schemes"),
        ("redis+ring://localhost", r"expected redis://, .*redis\+cluster://"),
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
