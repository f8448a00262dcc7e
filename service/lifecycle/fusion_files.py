"""Follows the fusion files of one model: what changes goes live by itself, or says why not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from service.lifecycle.formulas import Formulas, fit, note
from service.lifecycle.version import LoadedVersion
from service.metrics import Metrics

log = logging.getLogger(__name__)

Fingerprint = frozenset[tuple[str, int, int]]


class FusionFiles:
    """The `fusions` directory of one model.

    Args:
        model: its name.
        executor: where files are read and formulas compiled, so that no request waits for it.

    Attributes:
        refused: name -> why what is live under it is not what its file says.
    """

    def __init__(self, directory: Path, model: str, executor: Executor, metrics: Metrics) -> None:
        self._directory = directory
        self._model = model
        self._executor = executor
        self._metrics = metrics
        self._fitted: Fingerprint | None = None
        self._fitting = asyncio.Lock()
        self.refused: Mapping[str, str] = {}

    def fit_anew(self) -> None:
        """Fit all files the next time, changed or not: the versions are others now."""
        self._fitted = None

    async def follow(self, served: Sequence[LoadedVersion]) -> None:
        """Fit the files, if they have changed, to every version that new requests can reach.

        Raises:
            OSError: the directory cannot be read.
        """
        async with self._fitting:
            seen = fingerprint(self._directory)
            if seen == self._fitted:
                return
            run = partial(asyncio.get_running_loop().run_in_executor, self._executor)
            before = [(each.manifest, each.formulas) for each in served]
            fitted = await run(fit, self._directory, before)
            self._fitted = seen
            for each, formulas in zip(served, fitted.formulas, strict=True):
                self._report(each.formulas, formulas)
                each.formulas = formulas
            self._report_refused(fitted.refused, fitted.formulas)
            await run(note, self._directory, fitted.accepted)

    def _report(self, old: Formulas, new: Formulas) -> None:
        before, after = old.versions(), new.versions()
        for name, version in after.items():
            if version != before.get(name):
                self._metrics.fusion_changes.labels(self._model, name).inc()
                log.info("%s: fusion %s is %s", self._model, name, version)
        for name in before.keys() - after.keys():
            log.info("%s: fusion %s is gone", self._model, name)

    def _report_refused(self, refused: Mapping[str, str], live: Sequence[Formulas]) -> None:
        for name, reason in refused.items():
            if reason != self.refused.get(name):
                self._metrics.fusions_refused.labels(self._model, name).inc()
                stays = {each.versions().get(name) for each in live} - {None}
                kept = f"{', '.join(sorted(map(str, stays)))} stays" if stays else "none is live"
                message = "%s: fusion %s refused (%s): %s"
                log.warning(message, self._model, name, kept, reason)
        self.refused = refused


def fingerprint(directory: Path) -> Fingerprint:
    """Names, sizes and times of a directory's files but hidden ones: changes as they do."""
    if not directory.is_dir():
        return frozenset()
    return frozenset(_look(path) for path in directory.iterdir() if path.name[0] != ".")


def _look(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()  # through links: a file that is linked in may change elsewhere
    except OSError:
        stat = path.lstat()  # a link that leads nowhere
    return path.name, stat.st_size, stat.st_mtime_ns
