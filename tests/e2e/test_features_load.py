"""`multirank features`: load, killed and gone on with; damaged files; get, stats; the writer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from multirank.features import FeatureWriter
from service.features.feature_set import FeatureSet
from tests.conftest import ROOT, Serve
from tests.e2e.asking import REQUEST, USER
from tests.published import MODEL, Expected, fused
from tests.servers import Redis, Service, environment, eventually

KUAIRAND = ROOT / "examples" / "features" / "kuairand.yaml"
DATA = ROOT.parent / "shared" / "data" / "kuairand-pure-features"
SCHEMA = """
feature_set: films
ids: {item: film}
features:
  - {name: price, entity: item, kind: number}
  - {name: genres, entity: item, kind: id_list, hash_buckets: 10, max_length: 3}
"""


def command(url: str, *options: object) -> list[str]:
    words = [str(each) for each in options]
    return [sys.executable, "-m", "multirank", "features", *words, "--redis-url", url]


def run(url: str, *options: object, rc: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a `multirank features` command, and check how it ends."""
    done = subprocess.run(
        command(url, *options), env=environment(), capture_output=True, text=True, timeout=90
    )
    assert done.returncode == rc, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A feature set's file."""
    path = tmp_path / "films.yaml"
    path.write_text(SCHEMA)
    return path


def table(path: Path, rows: int) -> Path:
    lines = (f"{n},{n / 2},a|b\n" for n in range(rows))
    path.write_text("film,price,genres\n" + "".join(lines))
    return path


def prices(films: Path, server: Redis) -> list[float]:
    """The stored prices, in order."""
    features = FeatureSet.of_file(films)
    with server.client() as client:
        rows: list[Any] = client.mget(list(client.scan_iter(f"{features.prefix('item')}*")))
    decoded = features.layout("item").decode(rows)
    assert decoded.found.all()
    found: list[float] = decoded.rows["numbers"][:, 0].tolist()
    return sorted(found)


def test_a_load_that_was_killed_goes_on_where_it_stopped(
    redis_server: Redis, films: Path, tmp_path: Path
) -> None:
    file = table(tmp_path / "films.csv", 6_000)
    options = ("load", "--entity", "item", "--schema", films, file)
    process = subprocess.Popen(
        command(redis_server.url, *options, "--rate", 2_000),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, redis_server.client() as client:
        eventually(lambda: client.dbsize() > 1_000)
        process.send_signal(signal.SIGKILL)
    assert client.dbsize() < 6_000

    done = run(redis_server.url, *options)
    assert "rows that were loaded before" in done.stderr
    assert "loading item rows: 6000" not in done.stderr
    assert "(100%)" in done.stderr
    assert prices(films, redis_server) == [n / 2 for n in range(6_000)]

    other = table(tmp_path / "other.csv", 10)  # whose load was not interrupted
    done = run(redis_server.url, "load", "--entity", "item", "--schema", films, other)
    assert "went on" not in done.stderr

    done = run(redis_server.url, *options)  # finished: nothing to go on with
    assert "loaded 6000 item rows of films" in done.stdout
    with redis_server.client() as client:
        assert not list(client.scan_iter("mr:.load:*"))


@pytest.mark.parametrize("emptied", ["emptied", "stopped"])
def test_a_load_says_so_when_redis_loses_its_rows(
    redis_server: Redis, films: Path, tmp_path: Path, emptied: str
) -> None:
    file = table(tmp_path / "films.csv", 6_000)
    options = ("load", "--entity", "item", "--schema", films, file)
    slowly = command(redis_server.url, *options, "--rate", 2_000)
    with redis_server.client() as client:
        process = subprocess.Popen(slowly, env=environment(), stderr=subprocess.PIPE, text=True)
        eventually(lambda: client.dbsize() > 1_000)
        if emptied == "emptied":
            client.flushall()
        else:
            redis_server.stop()
    _, said = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "Traceback" not in said
    if emptied == "emptied":
        assert "redis has lost rows while they were loaded: load the file again" in said
    else:
        assert "interrupted: the same command goes on from there" in said
        assert "--redis-url or MULTIRANK_REDIS_URL says where it is" in said
        redis_server.start()
    done = run(redis_server.url, *options)
    assert "loaded 6000 item rows of films" in done.stdout
    assert len(prices(films, redis_server)) == 6_000


def test_rows_of_the_same_id_are_counted(redis_server: Redis, films: Path, tmp_path: Path) -> None:
    file = table(tmp_path / "films.csv", 1_000)
    file.write_text(file.read_text() + "7,99,a\n999,99,a\n")
    done = run(redis_server.url, "load", "--entity", "item", "--schema", films, file)
    assert "loaded 1002 item rows of films" in done.stdout
    assert "replaced by later rows of the same id: 2" in done.stdout
    assert len(prices(films, redis_server)) == 1_000


def test_what_cannot_be_loaded_is_said_before_the_file_is_read(
    redis_server: Redis, films: Path, tmp_path: Path
) -> None:
    file = table(tmp_path / "films.csv", 10)
    options = ("load", "--entity", "item", "--schema", films, file)
    with redis_server.client() as client:
        client.config_set("requirepass", "secret")
    done = run(redis_server.url, *options, rc=1)
    assert done.stderr.startswith("redis refuses the login: ")
    done = run("redis://127.0.0.1:1/0", *options, rc=1)
    assert "Connection refused" in done.stderr
    assert "checking" not in done.stderr
    done = run("redis://127.0.0.1/films", *options, rc=1)
    assert done.stderr.startswith("--redis-url or MULTIRANK_REDIS_URL: not the URL of a Redis")


def test_a_file_without_rows_is_said_to_have_none(
    redis_url: str, films: Path, tmp_path: Path
) -> None:
    options = ("load", "--entity", "item", "--schema", films)
    done = run(redis_url, *options, table(tmp_path / "films.csv", 0), rc=1)
    assert "films.csv: has no rows" in done.stderr


def test_a_damaged_file_changes_nothing_or_its_good_rows_are_loaded(
    redis_server: Redis, films: Path, tmp_path: Path
) -> None:
    file = table(tmp_path / "films.csv", 600)
    lines = file.read_text().splitlines()
    bad = range(50, 350, 2)
    for line in bad:
        lines[line - 1] = lines[line - 1].replace(",", ",dear", 1)
    file.write_text("\n".join(lines))
    options = ("load", "--entity", "item", "--schema", films, file)

    done = run(redis_server.url, *options, rc=1)
    named = [line for line in done.stderr.splitlines() if f"{file}: line " in line]
    assert len(named) == 100
    assert named[0] == f"{file}: line 50: price: expected a number, got 'dear24.0'"
    assert f"{file}: and 50 more bad rows" in done.stderr
    assert "nothing was written" in done.stderr
    with redis_server.client() as client:
        assert client.dbsize() == 0

    done = run(redis_server.url, *options, "--bad-rows", "skip")
    assert "loaded 450 item rows of films" in done.stdout
    assert "left out 150" in done.stdout
    assert len(prices(films, redis_server)) == 450


def test_looking_at_rows(redis_server: Redis, films: Path, tmp_path: Path) -> None:
    run(
        redis_server.url,
        "load",
        "--entity",
        "item",
        "--schema",
        films,
        table(tmp_path / "f.csv", 5),
    )
    features = FeatureSet.of_file(films)
    with redis_server.client() as client:
        client.set(features.prefix("item") + "3", b"damaged")
        client.set("mr:films:item:0123456789abcdef:3", b"of another layout")
        client.lpush(features.prefix("item") + "a list", "of another type")

    got = json.loads(run(redis_server.url, "get", "item", 4, "--schema", films).stdout)
    assert (got["state"], got["features"]["price"]) == ("found", 2.0)
    assert len(got["features"]["genres"]) == 2
    for film, state in ((3, "corrupt"), (77, "not_found"), ("a list", "not_found")):
        done = run(redis_server.url, "get", "item", film, "--schema", films, rc=1)
        assert json.loads(done.stdout)["state"] == state
    users, items = run(redis_server.url, "stats", "--schema", films).stdout.splitlines()
    assert json.loads(users)["rows"] == 0
    found = json.loads(items)
    assert (found["rows"], found["rows_of_other_layouts"]) == (6, 1)
    assert found["sampled"] == {"corrupt": 1, "found": 4, "not_found": 1}
    assert found["bytes_in_redis"] > 5 * found["row_bytes"]


def test_what_rows_cost_is_measured_and_nothing_is_left(redis_server: Redis, films: Path) -> None:
    options = ("footprint", "--schema", films, "--rows", 30_000)
    found = json.loads(run(redis_server.url, *options).stdout)
    assert (found["entity"], found["rows"]) == ("item", 30_000)
    for memory in ("bytes_in_process", "bytes_in_redis"):
        assert found["row_bytes"] < found[memory] / 30_000 < 2_000
    with redis_server.client() as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("feature_set: x\nfeatures: 3\n", "features: Input should be a valid tuple"),
        ("feature_set: x\nfeature: []\n", "features: Field required"),
        ("feature_set: [", "expected"),
        ("feature_set: .x\nfeatures: []\n", "feature_set: String should match"),
    ],
)
def test_a_feature_set_that_is_none(
    redis_url: str, tmp_path: Path, content: str, says: str
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    done = run(redis_url, "stats", "--schema", path, rc=1)
    assert done.stderr.startswith(f"{path}: ")
    assert says in done.stderr


def scores_as(service: Service, right: float) -> bool:
    """Whether the one item that is written has the right score."""
    answer = service.rank(**REQUEST | {"candidates": {"ids": ["i7"]}})
    return bool(abs(answer["items"][0]["score"] - right) < 1e-4)


def test_what_a_streaming_job_writes_is_used_at_once(
    redis_server: Redis, served_models: Path, serve: Serve, expected: Expected
) -> None:
    service = serve(served_models, redis_url=redis_server.url)
    assert service.rank(**REQUEST)["degraded"] is not None
    with FeatureWriter.of_model(redis_server.url, served_models, MODEL) as writer:
        writer.write("user", [{"user_id": USER, **expected.features("user", USER)}])
        for price in (1.0, 9.0, 25.0):
            item = expected.features("item", "i7") | {"price": price}
            writer.write("item", [{"item_id": "i7", **item}])
            right = float(fused(expected.scores(USER, [item], REQUEST["context"]))[0])
            eventually(partial(scores_as, service, right))
        with pytest.raises(ValueError, match="price"):
            writer.write("item", [{"item_id": "i7", "price": "dear"}])
        with pytest.raises(ValueError, match="has no id"):
            writer.write("item", [{"price": 1.0}])
        with pytest.raises(ValueError, match=r"item_id\[1\]: an id is a string"):
            writer.write("item", [{"item_id": "i7"}, {"item_id": 8.0}])
        writer.write("item", [])


@pytest.mark.skipif(
    not DATA.is_dir(), reason="KuaiRand-Pure's features are not beside the checkout"
)
def test_kuairand_is_loaded_as_the_readme_says(redis_server: Redis) -> None:
    for entity, file, rows in (
        ("user", "user_features_pure.csv", 27_285),
        ("item", "video_features_basic_pure.csv", 7_583),
    ):
        options = ("load", "--entity", entity, "--schema", KUAIRAND, DATA / file)
        done = run(redis_server.url, *options)
        assert f"loaded {rows} {entity} rows of kuairand" in done.stdout
        assert f"loading {entity} rows: {rows} (100%)" in done.stderr
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.dbsize() == 27_285 + 7_583
