"""The split of rows without a time: at random, by a seed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_export.data.split import Share


class RandomSplit(BaseModel):
    """Shares of the rows that go to validation and test, drawn by `seed`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["random"] = "random"
    seed: Annotated[int, Field(ge=0)] = 0
    validation: Share = 0.2
    test: Share = 0.2

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on")
        return self

    def parts(self, rows: int) -> npt.NDArray[np.int8]:
        """The part of each row [N]: 0 training, 1 validation, 2 test; exact shares."""
        validation, test = int(rows * self.validation), int(rows * self.test)
        parts = np.zeros(rows, np.int8)
        parts[:validation], parts[validation : validation + test] = 1, 2
        shuffled: npt.NDArray[np.int8] = np.random.default_rng(self.seed).permutation(parts)
        return shuffled
