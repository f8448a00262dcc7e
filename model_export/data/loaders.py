"""The loaders that a configuration can name under `data.loader`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from model_export.data import census, correlated, movielens, synthetic
from model_export.data.census import CensusOptions
from model_export.data.correlated import CorrelatedOptions
from model_export.data.declarations import FeatureDeclaration
from model_export.data.impressions import Feed, Part
from model_export.data.movielens import MovieLensOptions
from model_export.data.synthetic import SyntheticOptions
from model_export.data.table import loader as table
from model_export.data.table.options import TableOptions
from model_export.data.tasks import TaskDeclaration

AnyOptions = CensusOptions | CorrelatedOptions | MovieLensOptions | SyntheticOptions | TableOptions
DataOptions = Annotated[AnyOptions, Field(discriminator="loader")]


def load(
    options: AnyOptions,
    features: Sequence[FeatureDeclaration] = (),
    tasks: Sequence[TaskDeclaration] = (),
) -> Feed[Part]:
    """Load the data set that `options` name.

    Args:
        features, tasks: of the configuration; they say which columns of a table are read.

    Raises:
        DataInvalid: it cannot be fetched or read.
    """
    match options:
        case CensusOptions():
            return census.load(options)
        case CorrelatedOptions():
            return correlated.load(options)
        case MovieLensOptions():
            return movielens.load(options)
        case SyntheticOptions():
            return synthetic.load(options)
        case TableOptions():
            return table.load(options, features, tasks)
