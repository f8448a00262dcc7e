"""A model that knows nothing of multirank: trained in plain torch, exported by `torch.onnx.export`.

    python examples/imported/train.py --out imported
    multirank import-onnx imported/model.onnx --spec imported/spec.yaml

It leaves `model.onnx`, tables of users and articles, and example rows with the scores that torch
gives; `spec.yaml` says which input is what.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

CITIES = ["lima", "oslo", "rome"]
USERS, ARTICLES, ROWS = 100, 60, 6_000


class DeepAndCross(nn.Module):
    """DCN-v2 with two tasks (Wang et al., WWW 2021, equation 1: x' = x0 * (W x + b) + x).

    Its indices are its own: cities count from 0, articles from 1, and 0 is an article unheard of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.city = nn.Embedding(len(CITIES) + 1, 4)
        self.article = nn.Embedding(ARTICLES + 1, 8)
        self.cross = nn.ModuleList(nn.Linear(14, 14) for _ in range(2))
        self.deep = nn.Sequential(nn.Linear(14, 32), nn.ReLU())
        self.logits = nn.Linear(14 + 32, 2)

    def forward(
        self, city: torch.Tensor, article: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        """city int64 [N], article int64 [N], dense float32 [N, 2] -> logits float32 [N, 2]."""
        x0 = torch.cat((self.city(city), self.article(article), dense), dim=1)
        x = x0
        for layer in self.cross:
            x = x0 * layer(x) + x
        logits: torch.Tensor = self.logits(torch.cat((x, self.deep(x0)), dim=1))
        return logits


def main() -> None:
    """Train, export, and write the tables that the specification names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    age = rng.uniform(18, 80, USERS)
    city = rng.integers(len(CITIES), size=USERS)
    age_hours = rng.exponential(24, ARTICLES)
    appeal = rng.normal(size=(ARTICLES, len(CITIES)))

    user, article = rng.integers(USERS, size=ROWS), rng.integers(ARTICLES, size=ROWS)
    interest = appeal[article, city[user]] - age_hours[article] / 24 + (age[user] - 50) / 30
    labels = interest[:, None] + rng.logistic(size=(ROWS, 2)) > np.array([0.0, 1.0])
    inputs = (
        torch.from_numpy(city[user]),
        torch.from_numpy(article + 1),
        torch.from_numpy(
            np.stack(((age[user] - 50) / 20, age_hours[article] / 24), axis=1).astype(np.float32)
        ),
    )
    model = DeepAndCross()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(5):
        for rows in np.array_split(rng.permutation(ROWS), 20):
            loss = nn.functional.binary_cross_entropy_with_logits(
                model(*(values[rows] for values in inputs)),
                torch.from_numpy(labels[rows].astype(np.float32)),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model.eval(),
        inputs,
        str(out / "model.onnx"),
        input_names=["city", "article", "dense"],
        output_names=["logits"],
        dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
        dynamo=True,
        verbose=False,
    )
    with torch.inference_mode():
        scores = torch.sigmoid(model(*(values[:32] for values in inputs))).T.tolist()
    cities = [CITIES[each] for each in city]
    write = {
        "users.parquet": {"user_id": range(USERS), "age": age, "city": cities},
        "articles.parquet": {
            "article": range(1, ARTICLES + 1),
            "age_hours": age_hours,
            "title": [f"Article {number}" for number in range(1, ARTICLES + 1)],
        },
        "examples.parquet": {
            "user.age": age[user[:32]],
            "user.city": [cities[each] for each in user[:32]],
            "item.article": article[:32] + 1,
            "item.age_hours": age_hours[article[:32]],
            "click": scores[0],
            "share": scores[1],
        },
    }
    for file, columns in write.items():
        pq.write_table(
            pa.table({name: pa.array(each) for name, each in columns.items()}), out / file
        )
    shutil.copy(Path(__file__).with_name("spec.yaml"), out / "spec.yaml")


if __name__ == "__main__":
    main()
