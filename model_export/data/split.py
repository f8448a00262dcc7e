"""The split of a data set into consecutive periods by global time."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(gt=0, lt=1)]


class TimeSplit(BaseModel):
    """Shares of the events that go to validation and test; the earlier rest is for training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: Share = 0.1
    test: Share = 0.1

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on")
        return self

    def periods(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The period of each event [N]: 0 training, 1 validation, 2 test.

        Events at the same moment are never torn apart.
        """
        ordered = np.sort(times)
        shares = (1 - self.validation - self.test, 1 - self.test)
        starts = ordered[[int(len(ordered) * share) for share in shares]]
        return np.searchsorted(starts, times, side="right")
