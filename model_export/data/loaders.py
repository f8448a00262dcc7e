"""The loaders that a configuration can name under `data.loader`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from model_export.data import movielens, synthetic
from model_export.data.impressions import Feed
from model_export.data.movielens import MovieLensOptions
from model_export.data.synthetic import SyntheticOptions

DataOptions = Annotated[MovieLensOptions | SyntheticOptions, Field(discriminator="loader")]


def load(options: MovieLensOptions | SyntheticOptions) -> Feed:
    """Load the data set that `options` name.

    Raises:
        DataInvalid: it cannot be fetched or read.
    """
    if isinstance(options, MovieLensOptions):
        return movielens.load(options)
    return synthetic.load(options)
