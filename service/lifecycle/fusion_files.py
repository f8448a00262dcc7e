"""Follows the fusion files of one model: what changes goes live by itself, or says why not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.lifecycle.formulas import Formulas, fit, note
from service.lifecycle.version import Fingerprint, LoadedVersion, fingerprint
from service.metrics import Metrics

log = logging.getLogger(__name__)


class FusionFiles:
    """The `fusions` directory of one model.

    Args:
        model: its name.

    Attributes:
        refused: name -> why what is live under it is not what its file says; always this object.
    """

    def __init__(self, directory: Path, model: str, metrics: Metrics) -> None:
        self._directory = directory
        self._model = model
        self._metrics = metrics
        self._fitted: tuple[Fingerprint, tuple[int, ...]] | None = None
        self._live: Mapping[str, str] = {}
        self._fitting = asyncio.Lock()
        self.refused: dict[str, str] = {}

    async def follow(self, served: Sequence[LoadedVersion]) -> None:
        """Fit the files to every version that requests can reach, if either have changed.

        Raises:
            OSError: the directory cannot be read.
        """
        async with self._fitting:
            state = (fingerprint(self._directory), tuple(map(id, served)))
            if state == self._fitted:
                return
            before = [(each.manifest, each.formulas) for each in served]
            fitted = await asyncio.to_thread(fit, self._directory, before)
            self._fitted = state
            for each, formulas in zip(served, fitted.formulas, strict=True):
                each.formulas = formulas
            self._report(fitted.formulas[-1])
            self._report_refused(fitted.refused, fitted.formulas)
            await asyncio.to_thread(note, self._directory, fitted.accepted)

    def _report(self, new: Formulas) -> None:
        before, after = self._live, new.versions()
        for name, version in after.items():
            if version != before.get(name):
                self._metrics.fusion_changes.labels(self._model, name).inc()
                log.info("%s: fusion %s is %s", self._model, name, version)
        for name in before.keys() - after.keys():
            log.info("%s: fusion %s is gone", self._model, name)
        self._live = after

    def _report_refused(self, refused: Mapping[str, str], live: Sequence[Formulas]) -> None:
        for name, reason in refused.items():
            if reason != self.refused.get(name):
                self._metrics.fusions_refused.labels(self._model, name).inc()
                stays = {each.versions().get(name) for each in live} - {None}
                kept = f"{', '.join(sorted(map(str, stays)))} stays" if stays else "none is live"
                message = "%s: fusion %s refused (%s): %s"
                log.warning(message, self._model, name, kept, reason)
        self.refused.clear()
        self.refused.update(refused)
