"""The papers' experiments once more, all of them or those that are named.

What the cache holds is not trained again, so an interrupted reproduction goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from model_export.errors import TrainingError
from model_export.reproduce import census, conversion, correlation

_SHARED = Path("../shared/data")
_EXPERIMENTS = ("census", "correlation", "conversion")


def main() -> None:
    """Run the experiments."""
    parser = argparse.ArgumentParser(prog="python -m model_export.reproduce", description=__doc__)
    parser.add_argument("experiments", nargs="*", help=f"of {', '.join(_EXPERIMENTS)}")
    file = _SHARED / "census-income-kdd/census-income.test.gz"
    parser.add_argument("--census", type=Path, default=file, help="a file of Census-Income")
    file = _SHARED / "hillstrom-email/hillstrom.csv"
    parser.add_argument("--hillstrom", type=Path, default=file, help="Hillstrom's file")
    parser.add_argument("--census-seeds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5, help="of the other experiments")
    parser.add_argument("--cache", type=Path, default=Path(".reproduce"), help="single results")
    parser.add_argument("--out", type=Path, default=Path("docs/reproduce"), help="tables, plots")
    arguments = parser.parse_args()
    chosen = arguments.experiments or _EXPERIMENTS
    if unknown := set(chosen) - set(_EXPERIMENTS):
        parser.error(f"no experiment {', '.join(sorted(unknown))}; of {', '.join(_EXPERIMENTS)}")
    console, cache, out = Console(), arguments.cache, arguments.out
    seeds = range(1, arguments.seeds + 1)
    try:
        if "census" in chosen:
            of_census = range(1, arguments.census_seeds + 1)
            census.run(arguments.census, of_census, cache, out, console)
        if "correlation" in chosen:
            correlation.run(seeds, cache, out, console)
        if "conversion" in chosen:
            conversion.run(arguments.hillstrom, seeds, cache, out, console)
    except TrainingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
