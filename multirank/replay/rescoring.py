"""A logged decision once more: its rows through a version's encoder, graphs and formulas.

The same rooms as in the service, one request a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.rows import RowLayout, Rows
from bundle.store import Bundle
from multirank.fusion.errors import FusionCommandError
from multirank.fusion.formulas import find
from service.decision_log.reading import Recorded
from service.fusion.compile import CompiledFusion, compile_fusion
from service.fusion.errors import FusionError
from service.fusion.formula import Fusion, adhoc_fusion
from service.metrics import Metrics
from service.scoring.item_cache import UNCACHED
from service.scoring.stages import open_model
from service.values import Candidates, Scores, UserSide

_RUN_ROWS = 512


@dataclass(frozen=True)
class Rescored:
    """What a version makes of a decision.

    Attributes:
        scores: float32 [N, T], columns as the version's tasks.
        fused: float64 [N]; None if nothing was fused, or cannot be with this version.
        other_formula: the formula of the log is gone; today's of that name fused them.
        absent: features of the version that the log does not have, by key: defaults stood in.
    """

    scores: Scores
    fused: npt.NDArray[np.float64] | None
    other_formula: bool
    absent: Sequence[str]


class Rescorer:
    """Scores decisions with a published version.

    Raises:
        BundleError: the version cannot be opened.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._manifest = bundle.manifest
        self._fusions = bundle.path.parent / "fusions"
        self._encoder = bundle.encoder()
        self._model = open_model(bundle, self._encoder, 1, 0, Metrics())
        self._compiled: dict[tuple[str | None, ...], tuple[CompiledFusion | None, bool]] = {}

    def rescore(self, recorded: Recorded) -> Rescored:
        """Score and fuse a decision again, as the service does."""
        rows, absent = recorded.rows_for(self._encoder.layouts)
        users = UserSide(rows["user"], rows["context"])
        items = Candidates(rows["item"], np.full(len(rows["item"]), UNCACHED, np.uint64))
        parts = []
        for start in range(0, len(items), _RUN_ROWS):
            some = items.take(slice(start, start + _RUN_ROWS))
            parts.append(self._model.score(users, [some], np.zeros(len(some), np.int64)))
        scores = np.concatenate(parts)
        unscorable = _without_required(self._encoder.layouts["item"], rows["item"])
        scores[unscorable] = np.nan
        compiled, other_formula = self._formula(recorded)
        if recorded.fused is None or compiled is None:
            return Rescored(scores, None, False, absent)
        weights = {n: v for n, v in recorded.weights.items() if n in compiled.weights}
        features = {}
        for key in compiled.features_used:
            entity, _, name = key.partition(".")
            for owner, values in rows.items():
                if owner == entity:
                    features[key] = self._encoder.raw_number(owner, name, values)
        fused = compiled.evaluate(scores, compiled.bind_weights(weights), features)
        fused[unscorable] = np.nan
        return Rescored(scores, fused, other_formula, absent)

    def _formula(self, recorded: Recorded) -> tuple[CompiledFusion | None, bool]:
        """The formula of a decision for this version, and whether it is another by now."""
        asked = (recorded.fusion, recorded.fusion_version, recorded.formula)
        if asked not in self._compiled:
            self._compiled[asked] = self._find(recorded)
        return self._compiled[asked]

    def _find(self, recorded: Recorded) -> tuple[CompiledFusion | None, bool]:
        if recorded.fusion is None:
            return None, False
        try:
            fusion = self._published(recorded.fusion, recorded.fusion_version, recorded.formula)
            kinds = self._manifest.features.kinds()
            compiled = compile_fusion(fusion, self._manifest.task_names, kinds)
        except (FusionCommandError, FusionError):  # gone, or not for this version's tasks
            return None, False
        return compiled, compiled.version != recorded.fusion_version

    def _published(self, name: str, version: str | None, formula: str | None) -> Fusion:
        if formula is not None:
            return adhoc_fusion(formula)
        try:
            return find(f"{name}@{version}", self._fusions)
        except FusionCommandError:
            return find(name, self._fusions)


def _without_required(layout: RowLayout, rows: Rows) -> npt.NDArray[np.bool_]:
    required = np.array([name in layout.required for name in layout.slots], bool)
    without: npt.NDArray[np.bool_] = (layout.missing(rows) & required).any(axis=1)
    return without
