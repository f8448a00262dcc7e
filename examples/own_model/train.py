"""Train the two-tower network on a generated feed, export it, publish it:

python examples/own_model/train.py --models models
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from two_tower import TwoTower

from bundle.store import publish
from model_export.data import synthetic
from model_export.data.declarations import (
    CategoricalDeclaration,
    IdListDeclaration,
    NumberDeclaration,
)
from model_export.data.encoded import encode, pack
from model_export.data.fit import fit
from model_export.data.synthetic import SyntheticOptions
from model_export.data.tasks import TaskDeclaration
from model_export.own import export_module
from model_export.training.run_directory import Examples

FEATURES = (
    CategoricalDeclaration(name="segment", entity="user", kind="categorical", vocabulary="fit"),
    IdListDeclaration(
        name="history", entity="user", kind="id_list", shares="item.item_id", max_length=10
    ),
    NumberDeclaration(name="hour", entity="context", kind="number"),
    CategoricalDeclaration(name="item_id", entity="item", kind="categorical", vocabulary="fit"),
    NumberDeclaration(name="price", entity="item", kind="number"),
)
TASKS = (
    TaskDeclaration(name="click", kind="binary"),
    TaskDeclaration(name="like", kind="binary", where="click"),
)


def main() -> None:
    """Train, export, publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()

    feed = synthetic.load(SyntheticOptions(loader="synthetic", users=200, items=100))
    features = fit(FEATURES, feed.train)
    encoder = features.encoder()
    train = encode(feed.train, TASKS, encoder)
    torch.manual_seed(0)
    module = TwoTower(features.schema, len(TASKS))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    order = np.random.default_rng(0)
    for epoch in range(options.epochs):
        losses = []
        for rows in np.array_split(order.permutation(len(train)), len(train) // 512):
            batch = train.batch(rows)
            users = module.user_stage(batch.user_ids, batch.user_numbers)
            items = module.item_stage(batch.item_ids, batch.item_numbers)
            logits = module.logits(users[batch.user_row], items[batch.item_row])
            loss = binary_cross_entropy_with_logits(logits, batch.labels, batch.masks.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")

    examples = Examples(
        users=pack(feed.test, "user", encoder)[:8],
        contexts=pack(feed.test, "context", encoder)[:8],
        items=pack(feed.test, "item", encoder)[:64],
    )
    with tempfile.TemporaryDirectory() as directory:
        bundle = Path(directory) / "bundle"
        manifest = export_module(
            module,
            bundle,
            name="two-tower",
            features=features,
            tasks=[task.served() for task in TASKS],
            examples=examples,
            samples=(feed.users, feed.items),
        )
        print(f"parity: {manifest.parity.max_abs_difference:.1e}")
        published = publish(bundle, options.models)
    formula = published.parent / "fusions" / "default.yaml"
    formula.parent.mkdir(exist_ok=True)
    formula.write_text("formula: click * (1 + like)\n")
    print(f"published: {published}")


if __name__ == "__main__":
    main()
