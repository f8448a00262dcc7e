"""Census-Income (KDD) as the two task groups of the MMoE paper.

UCI Machine Learning Repository, Census-Income (KDD): 40 attributes of persons surveyed in 1994
and 1995, an instance weight and the income class. Ma et al., KDD 2018, section 6.3.1:

    group 1   income above 50,000 dollars                 never married
    group 2   education: associate degree or higher       never married

The columns that a group's labels come from are no inputs of that group (of group 2, income is); the
instance weight is never one. A person is a candidate row, the survey's year its context.

The paper trains on the training file and splits the test file 1:1 into validation and test. Where
there is one file, a seeded random split of it stands for that.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from model_export.data.impressions import Columns, EntitySample, Feed, Impressions
from model_export.data.random_split import RandomSplit
from model_export.errors import DataInvalid

NUMBERS = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "num_emp",
    "weeks_worked",
)
COLUMNS = (
    *("age", "class_worker", "det_ind_code", "det_occ_code", "education", "wage_per_hour"),
    *("hs_college", "marital_stat", "major_ind_code", "major_occ_code", "race", "hisp_origin"),
    *("sex", "union_member", "unemp_reason", "full_or_part_emp", "capital_gains"),
    *("capital_losses", "stock_dividends", "tax_filer_stat", "region_prev_res"),
    *("state_prev_res", "det_hh_fam_stat", "det_hh_summ", "instance_weight", "mig_chg_msa"),
    *("mig_chg_reg", "mig_move_reg", "mig_same", "mig_prev_sunbelt", "num_emp", "fam_under_18"),
    *("country_father", "country_mother", "country_self", "citizenship", "own_or_self"),
    *("vet_question", "vet_benefits", "weeks_worked", "year", "income"),
)
_INCOMES = {"- 50000.": 0.0, "50000+.": 1.0}
_DEGREES = {
    "Associates degree-occup /vocational",
    "Associates degree-academic program",
    "Bachelors degree(BA AB BS)",
    "Masters degree(MA MS MEng MEd MSW MBA)",
    "Prof school degree (MD DDS DVM LLB JD)",
    "Doctorate degree(PhD EdD)",
}
_LABELLED = {1: ("income", "marital_stat"), 2: ("education", "marital_stat")}


class CensusOptions(BaseModel):
    """Where the file is, and what of it is predicted.

    Attributes:
        path: a file of the UCI archive: `census-income.data` or `.test`, plain or gzipped.
        held_out: the other file, to be split 1:1 into validation and test as in the paper; a
            part of `path` by `split` when left out.
        group: of the paper; outcomes are `income` or `education`, and `never_married`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loader: Literal["census"]
    path: Path
    held_out: Path | None = None
    group: Annotated[int, Field(ge=1, le=2)] = 1
    split: RandomSplit = RandomSplit()


def load(options: CensusOptions) -> Feed[Impressions]:
    """Read and split the persons.

    Raises:
        DataInvalid: a file is not there, empty, or not Census-Income; names file, row and column.
    """
    rows = read(options.path)
    parts = options.split.parts(len(rows))
    if options.held_out is not None:
        other = read(options.held_out)
        half = RandomSplit(seed=options.split.seed, validation=0.5, test=0.49)
        drawn = np.where(half.parts(len(other)) == 1, 1, 2)
        rows, parts = rows + other, np.concatenate((np.zeros(len(rows)), drawn)).astype(np.int8)
    train, validation, test = (
        _part(options, rows, np.flatnonzero(parts == part)) for part in range(3)
    )
    persons = {"person": [f"p{row}" for row in range(len(rows))], **_inputs(options.group, rows)}
    return Feed(
        description=f"Census-Income (UCI), group {options.group}, {options.path.name}",
        train=train,
        validation=validation,
        test=test,
        users=None,
        items=EntitySample("item", pa.table(persons), key="person"),
    )


def read(path: Path) -> list[list[str]]:
    """The persons of a file, 42 values each.

    Raises:
        DataInvalid: not there, empty, or a row has another number of values or a wrong one.
    """
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open() as file
        ):
            rows = [row for row in csv.reader(file, skipinitialspace=True) if row]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataInvalid(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise DataInvalid(f"{path}: empty: no persons")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(COLUMNS):
            raise DataInvalid(
                f"{path}, row {number}: {len(row)} columns, Census-Income has {len(COLUMNS)}"
            )
        if row[-1] not in _INCOMES:
            known = " or ".join(repr(income) for income in _INCOMES)
            raise DataInvalid(f"{path}, row {number}: column income: {row[-1]!r} is not {known}")
        for name in NUMBERS:
            value = row[COLUMNS.index(name)]
            if not value.isdigit():
                raise DataInvalid(f"{path}, row {number}: column {name}: {value!r} is no number")
    return rows


def _part(options: CensusOptions, rows: list[list[str]], of: npt.NDArray[np.int64]) -> Impressions:
    chosen = [rows[row] for row in of.tolist()]
    everyone = np.arange(len(chosen))
    first = "income" if options.group == 1 else "education"
    degrees = [value in _DEGREES for value in _column(chosen, "education")]
    incomes = [_INCOMES[value] for value in _column(chosen, "income")]
    married = _column(chosen, "marital_stat")
    return Impressions(
        users={},
        contexts={"year": _column(chosen, "year")},
        items=_inputs(options.group, chosen),
        user_row=everyone,
        item_row=everyone,
        outcomes={
            first: np.array(incomes if options.group == 1 else degrees, np.float32),
            "never_married": np.array([value == "Never married" for value in married], np.float32),
        },
        groups=everyone,
        origin=str(options.path),
        origin_rows=of + 1,
    )


def _inputs(group: int, rows: list[list[str]]) -> Columns:
    left_out = {*_LABELLED[group], "instance_weight", "year"}
    names = [name for name in COLUMNS if name not in left_out]
    columns = {name: _column(rows, name) for name in names}
    numbers = {name: [float(value) for value in columns[name]] for name in NUMBERS}
    return columns | numbers


def _column(rows: list[list[str]], name: str) -> list[str]:
    at = COLUMNS.index(name)
    return [row[at] for row in rows]
