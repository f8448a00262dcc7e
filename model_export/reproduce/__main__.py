"""`python -m model_export.reproduce [census ...]`: run experiments, all of them by default."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from model_export.reproduce import census

_CENSUS = Path("../shared/data/census-income-kdd/census-income.test.gz")
_EXPERIMENTS = ("census",)


def main() -> None:
    """Run the named experiments; what is in the cache is not trained again."""
    parser = argparse.ArgumentParser(prog="python -m model_export.reproduce", description=__doc__)
    parser.add_argument("experiments", nargs="*", choices=(*_EXPERIMENTS, []), default=[])
    parser.add_argument("--census", type=Path, default=_CENSUS, help="file of Census-Income")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--cache", type=Path, default=Path(".reproduce"), help="single results")
    parser.add_argument("--out", type=Path, default=Path("docs/reproduce"), help="tables, plots")
    arguments = parser.parse_args()
    console = Console()
    chosen = arguments.experiments or _EXPERIMENTS
    if "census" in chosen:
        seeds = range(1, arguments.seeds + 1)
        census.run(arguments.census, seeds, arguments.cache, arguments.out, console)


if __name__ == "__main__":
    main()
