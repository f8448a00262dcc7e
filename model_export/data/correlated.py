"""The synthetic regression data of the MMoE paper, which the PLE paper takes over.

Ma et al., KDD 2018, section 3.2: two regression tasks whose weight vectors have the cosine
`task_correlation`, p. With orthonormal u1, u2 in R^d:

    w1 = c u1        w2 = c (p u1 + sqrt(1 - p^2) u2)        x ~ N(0, I_d)
    y_k = w_k . x + sum_{i=1..m} sin(alpha_i w_k . x + beta_i) + e_k        e_k ~ N(0, 0.01)

The cosine of the weights is not quite the correlation of the labels, but goes with it (figure 2 of
the paper): identical tasks at p = 1, unrelated linear parts at p = 0. alpha and beta are the same
for both tasks and all p.

Half of x is the user's, half the item's, so that the network has its stages.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from model_export.data.impressions import Feed, Impressions
from model_export.data.random_split import RandomSplit

Floats = npt.NDArray[np.float64]


class CorrelatedOptions(BaseModel):
    """Sizes and structure.

    Attributes:
        rows: of all parts.
        dimension: d, even. sines: m. scale: c.
        task_correlation: p, the cosine of the two tasks' weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loader: Literal["correlated"]
    seed: int = 0
    rows: Annotated[int, Field(ge=10)] = 20_000
    dimension: Annotated[int, Field(ge=2, multiple_of=2)] = 100
    sines: Annotated[int, Field(ge=0)] = 4
    scale: Annotated[float, Field(gt=0)] = 1.0
    task_correlation: Annotated[float, Field(ge=0, le=1)] = 0.5
    split: RandomSplit = RandomSplit()


def load(options: CorrelatedOptions) -> Feed[Impressions]:
    """Generate the rows; the same options give the same rows, and all p the same x and noise."""
    rng = np.random.default_rng(options.seed)
    basis, _ = np.linalg.qr(rng.normal(size=(options.dimension, 2)))
    first, second = options.scale * basis.T
    p = options.task_correlation
    weights = np.stack((first, p * first + np.sqrt(1 - p**2) * second))
    alpha, beta = rng.uniform(1, 3, options.sines), rng.uniform(0, 2 * np.pi, options.sines)
    x = rng.normal(size=(options.rows, options.dimension))
    linear = x @ weights.T
    waves = np.sin(alpha * linear[..., None] + beta).sum(axis=-1)
    labels = linear + waves + rng.normal(scale=0.1, size=linear.shape)
    parts = options.split.parts(options.rows)
    train, validation, test = (_part(x, labels, np.flatnonzero(parts == one)) for one in range(3))
    return Feed(
        description=f"two regression tasks, cosine {p} (seed {options.seed})",
        train=train,
        validation=validation,
        test=test,
        users=None,
        items=None,
    )


def _part(x: Floats, labels: Floats, rows: npt.NDArray[np.int64]) -> Impressions:
    half = x.shape[1] // 2
    everyone = np.arange(len(rows))
    first, second = labels[rows].T.astype(np.float32)
    return Impressions(
        users={"x": x[rows, :half].tolist()},
        contexts={},
        items={"x": x[rows, half:].tolist()},
        user_row=everyone,
        item_row=everyone,
        outcomes={"first": first, "second": second},
        groups=everyone,
        origin="correlated tasks",
    )
