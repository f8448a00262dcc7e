"""`multirank fusion tune`: finds weights where there are some, and says so where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e.test_fusion_commands import ran, run

FORMULA = """
formula: a ** w_a * b ** w_b
weights:
  w_a: {default: 1, minimum: 0, maximum: 3}
  w_b: {default: 1, minimum: 0, maximum: 3}
"""
SMALL = ("--generations", 4, "--seed", 1)


def rows(lists: int, seed: int, noise: float = 0.4) -> dict[str, Any]:
    """Rankings in which `good` follows a alone, and `shown` follows b alone."""
    rng = np.random.default_rng(seed)
    size = 6 * lists
    a, b = rng.uniform(0.05, 1, (2, size))
    return {
        "list": np.repeat(np.arange(lists), 6),
        "group": np.repeat(np.arange(lists) // 3, 6),
        "score.a": a.astype(np.float32),
        "score.b": b.astype(np.float32),
        "label.good": (a + noise * rng.normal(size=size) > 0.8).astype(np.float32),
        "label.shown": (b + noise * rng.normal(size=size) > 0.6).astype(np.float32),
    }


def parquet(file: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


@pytest.fixture
def formula(tmp_path: Path) -> Path:
    file = tmp_path / "tunable.yaml"
    file.write_text(FORMULA)
    return file


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return parquet(tmp_path / "labelled.parquet", rows(240, 1))


def tuned(*arguments: object) -> Any:
    return json.loads(ran("tune", *arguments, *SMALL, "--json"))


def test_a_weight_that_only_harms_goes_to_zero(formula: Path, labelled: Path) -> None:
    found = tuned(formula, "--labelled", labelled, "--maximise", "ndcg@3(good)")

    assert found["better"]
    assert found["verdict"].startswith("better than the baseline: ndcg@3(good) +0.")
    assert found["interval"][0] > 0
    weights = found["tuned"]["searched"]["weights"]
    assert weights["w_b"] < 0.15 * weights["w_a"]
    gain = (
        found["tuned"]["held_out"]["values"]["ndcg@3(good)"]
        - found["baseline"]["held_out"]["values"]["ndcg@3(good)"]
    )
    assert found["interval"][0] < gain < found["interval"][1]
    assert found["baseline"]["searched"]["weights"] == {"w_a": 1, "w_b": 1}
    assert found == tuned(formula, "--labelled", labelled, "--maximise", "ndcg@3(good)")


def test_what_must_be_kept_is_kept(formula: Path, labelled: Path, tmp_path: Path) -> None:
    arguments = (formula, "--labelled", labelled, "--maximise", "auc(good)", "--keep")
    pictures = [tmp_path / "front.svg", tmp_path / "front.png"]
    found = tuned(*arguments, "gauc(shown)>=97%", "--picture", pictures[0])
    values, start = (found[each]["searched"]["values"] for each in ("tuned", "baseline"))
    assert values["gauc(shown)"] >= 0.97 * start["gauc(shown)"]
    assert values["auc(good)"] > start["auc(good)"]
    free = tuned(formula, "--labelled", labelled, "--maximise", "auc(good)")
    assert free["tuned"]["searched"]["values"]["auc(good)"] > values["auc(good)"]

    front = [list(each["values"].values()) for each in found["front"]]
    assert len(front) > 3
    assert front == sorted(front)
    assert [kept for _, kept in front] == sorted((kept for _, kept in front), reverse=True)
    assert pictures[0].read_text().count("<svg") == 1
    shown = ran("tune", *arguments, "auc(shown)>=0.3", *SMALL, "--picture", pictures[1])
    assert pictures[1].read_bytes().startswith(b"\x89PNG")
    assert "weights tried; better than the baseline" in shown
    assert "auc(shown), held out" in shown


def test_nothing_better_is_said_plainly_and_not_written(formula: Path, tmp_path: Path) -> None:
    columns = rows(120, 2)
    columns["label.good"] = (columns["score.a"] * columns["score.b"] > 0.3).astype(np.float32)
    best = parquet(tmp_path / "best.parquet", columns)
    arguments = (formula, "--labelled", best, "--maximise", "auc(good)")
    found = tuned(*arguments)
    assert not found["better"]
    assert found["verdict"] == "nothing better than the baseline was found"
    result = run("tune", *arguments, *SMALL, "--write", tmp_path / "new.yaml")
    assert result.exit_code == 1
    assert "not written: nothing better than the baseline was found" in result.stderr
    assert not (tmp_path / "new.yaml").exists()

    impossible = tuned(*arguments, "--keep", "auc(shown)>=1")
    assert impossible["verdict"] == "nothing found keeps auc(shown)>=1 on the rows searched"
    assert not impossible["better"]


def test_a_gain_that_does_not_last_is_not_better(
    formula: Path, labelled: Path, tmp_path: Path
) -> None:
    columns = rows(120, 3)
    columns["score.a"], columns["score.b"] = columns["score.b"], columns["score.a"]
    other = parquet(tmp_path / "other.parquet", columns)
    found = tuned(
        formula, "--labelled", labelled, "--held-out", other, "--maximise", "ndcg@3(good)"
    )
    assert not found["better"]
    assert found["verdict"].startswith("NOT better than the baseline: ndcg@3(good) -0.")


def test_what_is_not_kept_on_rows_held_out_is_named(
    formula: Path, labelled: Path, tmp_path: Path
) -> None:
    columns = rows(120, 3)
    columns["label.shown"] = 1 - columns["label.shown"]
    other = parquet(tmp_path / "other.parquet", columns)
    where = (formula, "--labelled", labelled, "--held-out", other)
    found = tuned(*where, "--maximise", "auc(good)", "--keep", "auc(shown)>=0.55")
    assert not found["better"]
    assert "; not kept there: auc(shown) 0.4" in found["verdict"]


def test_the_formula_is_written_with_its_weights(
    formula: Path, labelled: Path, tmp_path: Path
) -> None:
    target = tmp_path / "written.yaml"
    arguments = (formula, "--labelled", labelled, "--maximise", "auc(good)", "--tune", "w_b")
    ran("tune", *arguments, *SMALL, "--write", target)
    content = yaml.safe_load(target.read_text())
    assert content["weights"]["w_a"]["default"] == 1
    assert content["weights"]["w_b"]["default"] < 0.3
    assert content["weights"]["w_b"]["maximum"] == 3
    assert "tuned for auc(good)" in content["description"]
    again = tuned(target, "--labelled", labelled, "--maximise", "auc(good)")
    assert again["baseline"]["searched"]["weights"]["w_b"] == content["weights"]["w_b"]["default"]


def test_a_formula_that_looks_across_candidates_is_fused_list_by_list(
    labelled: Path, tmp_path: Path
) -> None:
    across = tmp_path / "across.yaml"
    across.write_text(FORMULA.replace("a ** w_a", "rank(-a) ** w_a"))
    found = tuned(across, "--labelled", labelled, "--maximise", "ndcg@3(good)")
    columns = pq.read_table(labelled).to_pydict()
    assert found["better"]
    assert found["tuned"]["searched"]["weights"]["w_b"] < 0.5
    assert len(columns["list"]) == 240 * 6


def test_a_decision_log_with_labels_that_came_later(formula: Path, tmp_path: Path) -> None:
    columns = rows(150, 4)
    log, items = tmp_path / "log", [f"i{n}" for n in range(6)]
    log.mkdir()
    for part in range(2):
        requests = range(part * 75, part * 75 + 75)
        decided = {
            "request_id": [f"r{n}" for n in requests],
            "user_id": [None if n % 5 == 0 else f"u{n // 3}" for n in requests],
            "item_ids": [items] * 75,
            **{
                f"score.{task}": [columns[f"score.{task}"][n * 6 : n * 6 + 6] for n in requests]
                for task in ("a", "b")
            },
        }
        pq.write_table(pa.table(decided), log / f"{part}.parquet")
    seen = np.arange(900) % 6 != 5  # nothing came back of the last item
    outcomes = {
        "request_id": np.repeat([f"r{n}" for n in range(150)], 6)[seen],
        "item_id": np.tile(items, 150)[seen],
        "label.good": columns["label.good"][seen],
    }
    labels = parquet(tmp_path / "outcomes.parquet", outcomes)
    found = tuned(formula, "--decisions", log, "--labelled", labels, "--maximise", "ndcg@3(good)")
    assert found["better"]
    assert str(log) in found["searched"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--maximise", "auc(good)"), "name a --run, or --labelled rows"),
        (("--labelled", "LABELLED", "--maximise", "auc"), "auc: not a metric"),
        (("--labelled", "LABELLED", "--maximise", "ndcg@0(good)"), "not a metric"),
        (("--labelled", "LABELLED", "--maximise", "auc(bad)"), "no label.bad; it has good, shown"),
        (("--labelled", "none.parquet", "--maximise", "auc(good)"), "none.parquet"),
        (
            ("--labelled", "LABELLED", "--maximise", "auc(good)", "--keep", "auc(shown)"),
            "expected METRIC>=99%",
        ),
        (
            ("--labelled", "LABELLED", "--maximise", "auc(good)", "--tune", "w_c"),
            "--tune: w_c: not a weight with bounds",
        ),
        (
            ("--labelled", "LABELLED", "--maximise", "auc(good)", "--baseline", "w_a=9"),
            "weight 'w_a' must be within 0 .. 3, not 9",
        ),
        (
            ("--labelled", "LABELLED", "--maximise", "auc(good)", "--picture", "x.png"),
            "--keep names the other",
        ),
        (("--run", "nowhere", "--maximise", "auc(good)"), "export the run first"),
    ],
)
def test_what_cannot_be_tuned(
    formula: Path, labelled: Path, arguments: tuple[str, ...], says: str
) -> None:
    given = [str(labelled) if each == "LABELLED" else each for each in arguments]
    result = run("tune", formula, *given, *SMALL)
    assert result.exit_code == 1
    assert says in result.stderr.replace("\n", " ")
