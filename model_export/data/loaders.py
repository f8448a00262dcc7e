"""The loaders that a configuration can name under `data.loader`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from model_export.data import census, movielens, synthetic
from model_export.data.census import CensusOptions
from model_export.data.impressions import Feed
from model_export.data.movielens import MovieLensOptions
from model_export.data.synthetic import SyntheticOptions

AnyOptions = CensusOptions | MovieLensOptions | SyntheticOptions
DataOptions = Annotated[AnyOptions, Field(discriminator="loader")]


def load(options: AnyOptions) -> Feed:
    """Load the data set that `options` name.

    Raises:
        DataInvalid: it cannot be fetched or read.
    """
    match options:
        case CensusOptions():
            return census.load(options)
        case MovieLensOptions():
            return movielens.load(options)
        case SyntheticOptions():
            return synthetic.load(options)
