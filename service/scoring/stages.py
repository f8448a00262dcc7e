"""The stages of one model version: user once a request, item once an item, joint a pair.

A model that came as one graph has the same three steps: its user and item steps encode, no more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from bundle.encoding import Encoded, Encoder, side_layout
from bundle.stages import SingleStage, Stages
from bundle.store import Bundle
from service.metrics import Metrics
from service.scoring.item_cache import ItemCache, ItemTensors
from service.scoring.joint import Joint
from service.scoring.runs import UNWATCHED, Runs
from service.scoring.session import Session
from service.scoring.tensor_memory import TensorMemory
from service.values import Candidates, Scores, UserSide

Tensor = npt.NDArray[np.float32]

_AFRESH_ROWS = 256


class Model(ABC):
    """What a version computes, as the batcher takes it apart.

    Attributes:
        exact: its scores are the exporter's but for the rounding of float32.
    """

    exact = True

    @abstractmethod
    def user(self, users: UserSide) -> Tensor:
        """User tensors float32 [U, P]."""

    @abstractmethod
    def item(self, items: Sequence[Candidates]) -> ItemTensors:
        """Item tensors float32 [N, P'] of N items in parts; good until the next call."""

    @abstractmethod
    def item_afresh(self, items: Candidates) -> Tensor:
        """Item tensors float32 [N, P'], computed now and not kept; from any thread."""

    @abstractmethod
    def joint(
        self, user_tensor: Tensor, item_tensors: ItemTensors, user_row: npt.NDArray[np.int64]
    ) -> Scores:
        """Task scores float32 [N, T].

        Args:
            user_tensor: [U, P]. item_tensors: [N, P']. user_row: [N], each in [0, U).
        """

    def score(
        self, users: UserSide, items: Sequence[Candidates], user_row: npt.NDArray[np.int64]
    ) -> Scores:
        """All three in a row: task scores float32 [N, T]."""
        return self.joint(self.user(users), self.item(items), user_row)

    def score_afresh(self, users: UserSide, items: Candidates) -> Scores:
        """Task scores float32 [N, T] of one user, without any cache; from any thread."""
        user = self.user(users)
        parts = [
            items.take(slice(at, at + _AFRESH_ROWS)) for at in range(0, len(items), _AFRESH_ROWS)
        ]
        return np.concatenate(
            [self.joint(user, self.item_afresh(p), np.zeros(len(p), np.int64)) for p in parts]
        )


def open_model(
    bundle: Bundle,
    encoder: Encoder,
    threads: int,
    item_cache_bytes: int,
    metrics: Metrics,
    runs: Runs = UNWATCHED,
    memory: TensorMemory | None = None,
) -> Model:
    """Build the sessions of a bundle.

    Args:
        encoder: of the same bundle; only rows whose tensor is not cached are encoded.
        threads: inside one run.
        item_cache_bytes: budget of the item tensor cache.
        memory: what the caches of versions hand each other.

    Raises:
        GraphInvalid: a graph cannot be opened or is not what the manifest says.
    """
    stages = bundle.manifest.stages
    if isinstance(stages, SingleStage):
        return SingleGraph(bundle, stages, encoder, threads, runs)
    width = stages.item.output_width
    memory = memory or TensorMemory()
    cache = ItemCache(bundle.manifest.model, item_cache_bytes, width, metrics, memory)
    return StagedModel(bundle, stages, encoder, threads, cache, runs)


class StagedModel(Model):
    """Three graphs, and the item tensors that the second has given.

    Args:
        cache: for these, empty. The others: see `open_model`.
    """

    def __init__(
        self,
        bundle: Bundle,
        stages: Stages,
        encoder: Encoder,
        threads: int,
        cache: ItemCache,
        runs: Runs,
    ) -> None:
        self._encoder = encoder
        self._cache = cache
        self.exact = cache.tensors.dtype == np.float32
        self._user, self._item = (
            Session(bundle.path / stage.file, stage, threads, runs)
            for stage in (stages.user, stages.item)
        )
        joint, width = stages.joint, stages.item.output_width
        self._joint = Joint(bundle.path / joint.file, joint, width, threads, runs)

    def user(self, users: UserSide) -> Tensor:
        """User tensors float32 [U, P]."""
        encoded = self._encoder.user(users.users, users.contexts)
        return self._user.run({"ids": encoded.ids, "numbers": encoded.numbers})

    def item(self, items: Sequence[Candidates]) -> ItemTensors:
        """Item tensors float32 [N, P], from the cache as far as it has them."""
        content = np.concatenate([part.content for part in items])
        return self._cache.gather(content, partial(self._compute_items, items))

    def item_afresh(self, items: Candidates) -> Tensor:
        """Item tensors float32 [N, P'], computed now and not kept; from any thread."""
        return self._cache.rounded(self._compute_items([items], np.arange(len(items))))

    def _compute_items(self, items: Sequence[Candidates], rows: npt.NDArray[np.intp]) -> Tensor:
        encoded = self._encoder.item(np.concatenate([part.rows for part in items])[rows])
        return self._item.run({"ids": encoded.ids, "numbers": encoded.numbers})

    def joint(
        self, user_tensor: Tensor, item_tensors: ItemTensors, user_row: npt.NDArray[np.int64]
    ) -> Scores:
        """Task scores float32 [N, T], in blocks of rows."""
        return self._joint.scores(user_tensor, item_tensors, user_row)


class SingleGraph(Model):
    """One graph, which repeats a user's columns for every candidate itself.

    Its user and item tensors are the encoded columns, ids before numbers, as 32-bit words: an id
    keeps its bits, whatever float32 they would be.
    """

    def __init__(
        self, bundle: Bundle, stages: SingleStage, encoder: Encoder, threads: int, runs: Runs
    ) -> None:
        features = bundle.manifest.features
        self._encoder = encoder
        self._user_ids = side_layout(features, "user").id_width
        self._item_ids = side_layout(features, "item").id_width
        self._session = Session(bundle.path / stages.single.file, stages.single, threads, runs)

    def user(self, users: UserSide) -> Tensor:
        """Encoded columns of U users, words [U, K + M]."""
        return _words(self._encoder.user(users.users, users.contexts))

    def item(self, items: Sequence[Candidates]) -> Tensor:
        """Encoded columns of N items, words [N, K' + M']."""
        return _words(self._encoder.item(np.concatenate([part.rows for part in items])))

    def item_afresh(self, items: Candidates) -> Tensor:
        """Encoded columns of N items, words [N, K' + M']."""
        return self.item([items])

    def joint(
        self, user_tensor: Tensor, item_tensors: ItemTensors, user_row: npt.NDArray[np.int64]
    ) -> Scores:
        """Task scores float32 [N, T]."""
        item_tensor = item_tensors[:]
        user_words, item_words = user_tensor.view(np.int32), item_tensor.view(np.int32)
        return self._session.run(
            {
                "user_ids": user_words[:, : self._user_ids],
                "user_numbers": user_tensor[:, self._user_ids :],
                "item_ids": item_words[:, : self._item_ids],
                "item_numbers": item_tensor[:, self._item_ids :],
                "user_row": user_row,
            }
        )


def _words(encoded: Encoded) -> Tensor:
    return np.concatenate((encoded.ids.view(np.float32), encoded.numbers), axis=1)
