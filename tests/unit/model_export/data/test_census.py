"""Census-Income: what is predicted, what is an input, and files that are something else."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_export.data import census, correlated
from model_export.data.census import CensusOptions
from model_export.data.correlated import CorrelatedOptions
from model_export.errors import DataInvalid

LINE = (
    "38, Private, 6, 36, {education}, 0, Not in universe, {married}, Manufacturing, Machine "
    "operators, White, Mexican (Mexicano), Female, Not in universe, Not in universe, Full-time, "
    "0, 0, 0, Joint one under 65, Not in universe, Not in universe, Spouse of householder, Spouse, "
    "1032.38, ?, ?, ?, Not in universe under 1 year old, ?, 4, Not in universe, Mexico, Mexico, "
    "Mexico, Foreign born- Not a citizen of U S , 0, Not in universe, 2, 12, 95, {income}"
)
PEOPLE = [
    LINE.format(education=education, married=married, income=income)
    for education, married, income in (
        ("Doctorate degree(PhD EdD)", "Never married", "50000+."),
        ("High school graduate", "Divorced", "- 50000."),
        ("Associates degree-academic program", "Never married", "- 50000."),
        ("Some college but no degree", "Widowed", "50000+."),
        ("Children", "Never married", "- 50000."),
    )
]


def _file(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("group", "first", "labels", "label_columns"),
    [
        (1, "income", [1, 0, 0, 1, 0], {"income", "marital_stat"}),
        (2, "education", [1, 0, 1, 0, 0], {"education", "marital_stat"}),
    ],
)
def test_the_papers_groups(
    group: int, first: str, labels: list[int], label_columns: set[str], tmp_path: Path
) -> None:
    path = _file(tmp_path / "census.data", PEOPLE)
    feed = census.load(CensusOptions(loader="census", path=path, group=group))
    outcomes = {}
    for part in (feed.train, feed.validation, feed.test):
        assert part.origin_rows is not None
        for row, number in enumerate(part.origin_rows.tolist()):
            outcomes[number] = [part.outcomes[name][row] for name in (first, "never_married")]
    assert [outcomes[number] for number in range(1, 6)] == list(
        map(list, zip(labels, [1, 0, 1, 0, 1], strict=True))
    )
    columns = set(feed.train.items) | set(feed.train.contexts)
    assert columns == set(census.COLUMNS) - label_columns - {"instance_weight"}


def test_a_gzipped_file_and_the_papers_split_of_the_other_file(tmp_path: Path) -> None:
    path = _file(tmp_path / "census.data", PEOPLE)
    other = tmp_path / "census.test.gz"
    other.write_bytes(gzip.compress("\n".join(PEOPLE * 20).encode()))
    feed = census.load(CensusOptions(loader="census", path=path, held_out=other))
    assert (len(feed.train), len(feed.validation), len(feed.test)) == (5, 50, 50)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "census.data: empty: no persons"),
        ([PEOPLE[0], "38, Private"], r"census.data, row 2: 2 columns, Census-Income has 42"),
        (
            [PEOPLE[0], PEOPLE[1].replace("- 50000.", "49000")],
            r"census.data, row 2: column income: '49000' is not '- 50000.' or '50000\+.'",
        ),
        ([PEOPLE[0].replace("38,", "old,", 1)], r"row 1: column age: 'old' is no number"),
    ],
)
def test_a_file_that_is_something_else_is_named(
    lines: list[str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "census.data"
    path.write_text("\n".join(lines))
    with pytest.raises(DataInvalid, match=message):
        census.load(CensusOptions(loader="census", path=path))


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="absent: cannot be read"):
        census.read(tmp_path / "absent")
    (tmp_path / "x.gz").write_bytes(b"not gzipped")
    with pytest.raises(DataInvalid, match=r"x.gz: cannot be read"):
        census.read(tmp_path / "x.gz")


@pytest.mark.parametrize("p", [1.0, 0.6, 0.0])
def test_correlated_tasks_have_the_stated_cosine(p: float) -> None:
    """Without sines the labels are w . x, so least squares gives the weights back."""
    options = CorrelatedOptions(loader="correlated", rows=2000, sines=0, task_correlation=p)
    train = correlated.load(options).train
    x: npt.NDArray[np.float64] = np.concatenate((train.users["x"], train.items["x"]), axis=1)
    labels = np.stack((train.outcomes["first"], train.outcomes["second"]), axis=1)
    first, second = np.linalg.lstsq(x, labels, rcond=None)[0].T
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert cosine == pytest.approx(p, abs=0.03)
    assert np.linalg.norm(first) == pytest.approx(1, abs=0.03)
    assert np.std(labels[:, 0] - x @ first) == pytest.approx(0.1, abs=0.02)


def test_correlated_tasks_with_sines_are_one_task_at_cosine_1() -> None:
    options = CorrelatedOptions(loader="correlated", rows=2000, task_correlation=1.0)
    outcomes = correlated.load(options).train.outcomes
    assert np.std(outcomes["first"] - outcomes["second"]) == pytest.approx(0.1 * 2**0.5, abs=0.02)
