"""`multirank fusion`: formulas checked, tried, compared, published and rolled back offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from multirank.main import app
from tests.conftest import Serve
from tests.e2e.asking import CONTEXT, IDS, REQUEST, USER, best_first
from tests.e2e.test_fusion_files import fusion_of, write
from tests.published import MODEL, ModelsDirectory, fused
from tests.servers import Service, eventually, multirank


def run(*arguments: object) -> Result:
    """A command, in this process."""
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, ["fusion", *map(str, arguments)])


def ran(*arguments: object) -> str:
    """What a command that succeeds prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUEST | {"fusion": "likes"}))
    return file


def test_check_is_a_command_of_its_own_process(models_dir: ModelsDirectory) -> None:
    done = multirank("fusion", "check", "--models", models_dir.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("default.yaml: ok, ")
    assert "tasks click, like, watch_seconds; weights like_weight 1 (0 .. 10)" in done.stdout


def test_check_shows_every_mistake_at_its_place(models_dir: ModelsDirectory) -> None:
    write(models_dir.fusion.with_name("likes.yaml"), "formula: lke * 2")
    write(models_dir.fusion.with_name("bool.yaml"), "formula: click * (like > 1)")
    write(models_dir.fusion.with_name("rules.yaml"), "rules: {a: {when: true, fusion: lks}}")
    result = run("check", "--models", models_dir.path)

    assert result.exit_code == 1
    assert result.stdout.startswith("default.yaml: ok, ")
    likes = "likes.yaml:1:10: unknown name 'lke'; did you mean 'like'?\n    formula: lke * 2\n"
    assert likes + "             ^^^\n" in result.stderr
    assert "bool.yaml:1:19: '*' takes a number here, this is a boolean\n" in result.stderr
    assert "rules.yaml:1:33: no fusion 'lks'\n" in result.stderr


def test_check_a_file_that_is_not_published(models_dir: ModelsDirectory, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("formula: click")
    (tmp_path / "note.yaml").write_text("- a list, and no formula")
    bundle = models_dir.model / "1"
    assert "tasks click" in ran("check", tmp_path / "new.yaml", "--bundle", bundle)
    missing = run("check", tmp_path / "nwe.yaml", "--bundle", bundle)
    assert (missing.exit_code, "no such file: nwe.yaml" in missing.stderr) == (1, True)


def test_eval_scores_a_request_as_the_service_does(
    models_dir: ModelsDirectory, request_file: Path
) -> None:
    printed = ran("eval", "default", request_file, "--models", models_dir.path, "--json")
    answer = json.loads(printed)

    scores = models_dir.expected(1).scores(USER, IDS, CONTEXT)
    wanted = fused(scores)
    assert [item["id"] for item in answer["items"]] == [IDS[row] for row in best_first(wanted)]
    given = [item["score"] for item in answer["items"]]
    np.testing.assert_allclose(given, np.sort(wanted)[::-1], rtol=1e-5)
    shown = ran("eval", "default", request_file, "--models", models_dir.path, "--top", 1)
    assert answer["items"][0]["id"] in shown
    assert answer["items"][-1]["id"] not in shown


@pytest.mark.parametrize("answer_format", ["rows", "columns"])
@pytest.mark.parametrize("path", ["/score", "/rank"])
def test_eval_a_recorded_answer(
    service: Service, path: str, answer_format: str, tmp_path: Path
) -> None:
    recorded = tmp_path / "answer.json"
    answer = service.ask(path, REQUEST | {"format": answer_format})
    recorded.write_text(json.dumps(answer))
    items = json.loads(ran("eval", "=like ** 2", recorded, "--json"))["items"]

    assert [item["score"] for item in items] == sorted(
        (item["tasks"]["like"] ** 2 for item in items), reverse=True
    )
    assert {item["id"] for item in items} == set(IDS)


def test_diff_tells_who_moves_and_why(models_dir: ModelsDirectory, request_file: Path) -> None:
    arguments = ("diff", "=click", "=click + 10 * like", request_file, "--model", MODEL)
    printed = ran(*arguments, "--models", models_dir.path, "--json")
    difference = json.loads(printed)

    scores = models_dir.expected(1).scores(USER, IDS, CONTEXT).astype(np.float64)
    orders = [best_first(each) for each in (scores[:, 0], scores[:, 0] + 10 * scores[:, 1])]
    ranks = [{IDS[row]: rank for rank, row in enumerate(order, 1)} for order in orders]
    moved = {item["id"]: item for item in difference["moved"]}
    assert moved
    assert set(moved) == {each for each in IDS if ranks[0][each] != ranks[1][each]}
    for name, item in moved.items():
        assert item["rank"] == [ranks[0][name], ranks[1][name]]
        before, after = item["contributions"]
        assert before["like"] == 0
        assert sum(after.values()) == pytest.approx(
            item["score"][1] - (scores[:, 0] + 10 * scores[:, 1]).mean(), abs=1e-6
        )
        likes_more = scores[IDS.index(name), 1] > scores[:, 1].mean()
        assert (item["why"]["like"] > 0) == likes_more
    ways = [abs(item["rank"][1] - item["rank"][0]) for item in difference["moved"]]
    assert ways == sorted(ways, reverse=True)
    assert f"{len(moved)} of {len(IDS)} items move" in ran(*arguments, "--models", models_dir.path)


def test_diff_of_a_formula_with_itself(models_dir: ModelsDirectory, request_file: Path) -> None:
    printed = ran("diff", "default", "default", request_file, "--models", models_dir.path)
    assert f"0 of {len(IDS)} items move; Kendall's tau 1.000" in printed


@pytest.mark.parametrize(
    ("content", "formula", "says"),
    [
        ("[1]", "=click", "expected an answer of /score or /rank, or a request"),
        ("{", "=click", "not JSON"),
        ("{}", "=click", "neither an answer"),
        ('{"ids": [], "tasks": {}}', "=click", "no candidates"),
        ('{"ids": ["a"], "tasks": {"click": [0.5]}}', "=clik", "did you mean 'click'?\n    clik"),
        ('{"ids": ["a"], "tasks": {"click": [0.5]}}', "none.yaml", "none.yaml: no such file"),
        (json.dumps(REQUEST), "=click", "name the --model that scores it"),
        (json.dumps({**REQUEST, "context": {"our": 1}}), "default", "context.our"),
        (json.dumps(REQUEST), "defalt", "no fusion 'defalt'; there is default"),
        (json.dumps(REQUEST), "default@abc", "'default' was never at a version abc"),
    ],
)
def test_what_cannot_be_evaluated(
    models_dir: ModelsDirectory, tmp_path: Path, content: str, formula: str, says: str
) -> None:
    recorded = tmp_path / "recorded.json"
    recorded.write_text(content)
    result = run("eval", formula, recorded, "--models", models_dir.path)
    assert result.exit_code == 1
    assert says in result.stderr


def test_a_weight_out_of_bounds_or_of_nobody(
    models_dir: ModelsDirectory, request_file: Path
) -> None:
    arguments = ("eval", "default", request_file, "--models", models_dir.path, "--weight")
    assert "must be within 0 .. 10, not 11" in run(*arguments, "like_weight=11").stderr
    assert "no formula has a weight like" in run(*arguments, "like=1").stderr
    assert "expected NAME=NUMBER" in run(*arguments, "like").stderr
    answer = json.loads(ran(*arguments, "like_weight=2", "--json"))
    assert answer["fusion"]["weights"] == {"like_weight": 2}


def test_publish_history_and_rollback_while_it_is_served(
    models_dir: ModelsDirectory, serve: Serve, tmp_path: Path
) -> None:
    service = serve(models_dir.path)
    first = fusion_of(service)
    new = tmp_path / "default.yaml"
    where = ("--model", MODEL, "--models", models_dir.path)

    new.write_text("formula: click * lke")
    refused = run("publish", new, *where)
    assert (refused.exit_code, "did you mean 'like'" in refused.stderr) == (1, True)
    new.write_text("formula: click * like")
    said = ran("publish", new, *where)
    second = said.splitlines()[1].rsplit(" ", 1)[1]
    assert said == f"{MODEL}: default: was {first}\n{MODEL}: default: now {second}\n"
    eventually(lambda: fusion_of(service) == second)

    said = ran("rollback", "default", *where)
    assert said == f"{MODEL}: default: was {second}\n{MODEL}: default: now {first}\n"
    eventually(lambda: fusion_of(service) == first)
    ran("rollback", "default", second[:6], *where)
    eventually(lambda: fusion_of(service) == second)

    entries: list[Any] = json.loads(ran("history", "default", *where, "--json"))
    assert [each["version"] for each in entries] == [first, second, first, second]
    assert entries[0]["by"] == "file"
    assert "@" in entries[1]["by"]
    assert ran("history", "default", *where).count(second) == 2
    assert "no version begins with 'zzzz'" in run("rollback", "default", "zzzz", *where).stderr
    assert "nothing is known of 'other'" in run("history", "other", *where).stderr
    assert "no model 'other'" in run("history", "default", "--model", "other").stderr
