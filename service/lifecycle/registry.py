"""The registry: which version of each model is live, and who holds which.

It follows the models directory. A newer version goes through the gate on a thread of its own;
when it is ready, new requests lease it, and the old one closes when its last lease ends. A
version that is refused changes nothing but its own line in `/models`.

    found -> loading -> ready -> draining -> closed
                    \\-> refused
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bundle.store import model_names, versions
from service.errors import NoActiveModel, UnknownModel
from service.lifecycle.gate import FUSIONS_DIR, Gate, Refused, compile_fusions
from service.lifecycle.version import LoadedVersion
from service.metrics import Metrics

log = logging.getLogger(__name__)

State = Literal["found", "loading", "ready", "draining", "closed", "refused"]
Fingerprint = frozenset[tuple[str, int, int]]
_CLOSED_KEPT = 5


@dataclass(slots=True)
class VersionStatus:
    """What is known of a version. `reason` says why it was refused."""

    version: int
    state: State = "found"
    reason: str | None = None
    fingerprint: Fingerprint = frozenset()


@dataclass(slots=True, eq=False)
class Model:
    """One model: the version that new requests lease, and what became of the others."""

    name: str
    live: LoadedVersion | None = None
    loaded: dict[int, LoadedVersion] = field(default_factory=dict)
    statuses: dict[int, VersionStatus] = field(default_factory=dict)
    fusions: Fingerprint = frozenset()


class Registry:
    """Follows a directory of published models.

    Args:
        poll_s: seconds between two looks at the directory.

    Attributes:
        looked: set once every version found at the start is live or refused.
    """

    def __init__(self, models: Path, gate: Gate, poll_s: float, metrics: Metrics) -> None:
        self._directory = models
        self._gate = gate
        self._poll_s = poll_s
        self._metrics = metrics
        self._models: dict[str, Model] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._following: asyncio.Task[None] | None = None
        self.looked = asyncio.Event()

    @property
    def models(self) -> list[Model]:
        """All models seen, by name."""
        return [self._models[name] for name in sorted(self._models)]

    @property
    def ready(self) -> bool:
        """Whether there are models, and every one has a live version."""
        return bool(self._models) and all(model.live for model in self._models.values())

    def start(self) -> None:
        """Begin to follow the directory; the first versions are loaded in the background."""
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following. Leases in hand stay good."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._loader.shutdown(wait=True)

    def least_wait_s(self) -> float:
        """Seconds that a request must expect to wait, whichever model it asks; 0 without any."""
        live = [model.live.batcher.wait_s() for model in self._models.values() if model.live]
        return min(live, default=0.0)

    @contextmanager
    def lease(self, name: str | None, version: int | None) -> Iterator[LoadedVersion]:
        """Hold one version for the length of a request.

        Args:
            name: the model; None when only one is served.
            version: a loaded version; None for the live one.

        Raises:
            UnknownModel: no such model, or the version is not loaded, or `name` is needed.
            NoActiveModel: the model has no version that is ready.
        """
        held = self._pick(name, version)
        leases = self._metrics.leases.labels(held.manifest.model, held.manifest.version)
        held.leases += 1
        leases.set(held.leases)
        try:
            yield held
        finally:
            held.leases -= 1
            leases.set(held.leases)
            self._close_if_drained(held)

    def _pick(self, name: str | None, version: int | None) -> LoadedVersion:
        if name is None:
            if len(self._models) > 1:
                raise UnknownModel(f"model: name one of {', '.join(sorted(self._models))}")
            if not self._models:
                raise NoActiveModel("no model is published yet")
            (name,) = self._models
        model = self._models.get(name)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel(f"model: no model {name!r}; served: {known}")
        if version is not None:
            if version not in model.loaded:
                loaded = ", ".join(map(str, sorted(model.loaded))) or "none"
                raise UnknownModel(
                    f"version: {name} version {version} is not loaded; loaded: {loaded}"
                )
            return model.loaded[version]
        if model.live is None:
            raise NoActiveModel(f"{name}: no version is ready; see /models")
        return model.live

    async def _follow(self) -> None:
        while True:
            try:
                names = model_names(self._directory)
            except Exception:  # an unreadable directory, say: what is live stays live
                log.exception("cannot follow %s", self._directory)
                names = []
            for name in names:
                model = self._models.setdefault(name, Model(name))
                try:
                    await self._load_newest(model)
                    self._reload_fusions(model)
                except Exception:
                    log.exception("cannot follow %s", self._directory / name)
            self.looked.set()
            await asyncio.sleep(self._poll_s)

    async def _load_newest(self, model: Model) -> None:
        live = model.live.manifest.version if model.live else 0
        for version in reversed(versions(self._directory, model.name)):
            if version <= live:
                return
            fingerprint = self._gate_sees(model.name, version)
            status = model.statuses.get(version)
            if status and status.state == "refused" and status.fingerprint == fingerprint:
                continue
            model.statuses[version] = VersionStatus(version, fingerprint=fingerprint)
            if await self._try_load(model, version):
                return

    def _gate_sees(self, model: str, version: int) -> Fingerprint:
        """Changes with whatever a version may have been refused for: its files, or the formulas."""
        directory = self._directory / model
        return _fingerprint(directory / str(version)) | _fingerprint(directory / FUSIONS_DIR)

    async def _try_load(self, model: Model, version: int) -> bool:
        self._enter(model, version, "loading")
        fusions = _fingerprint(self._directory / model.name / FUSIONS_DIR)
        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(
                self._loader, self._gate.admit, self._directory, model.name, version
            )
        except Refused as refusal:
            self._refuse(model, version, refusal.reason, str(refusal))
            return False
        except Exception as error:
            log.exception("%s version %d: loading failed", model.name, version)
            self._refuse(model, version, "load_failed", str(error))
            return False
        model.fusions = fusions
        previous, model.live = model.live, loaded
        model.loaded[version] = loaded
        self._enter(model, version, "ready")
        self._metrics.leases.labels(model.name, version).set(0)
        self._metrics.swaps.labels(model.name).inc()
        log.info("%s version %d is live", model.name, version)
        if previous is not None:
            self._enter(model, previous.manifest.version, "draining")
            self._close_if_drained(previous)
        return True

    def _refuse(self, model: Model, version: int, reason: str, detail: str) -> None:
        self._enter(model, version, "refused", f"{reason}: {detail}")
        self._metrics.versions_refused.labels(model.name, reason).inc()
        kept = f"version {model.live.manifest.version} stays" if model.live else "none is live"
        log.error("%s version %d refused: %s: %s (%s)", model.name, version, reason, detail, kept)

    def _reload_fusions(self, model: Model) -> None:
        """Formulas are published without a new version; a wrong one leaves the old in place."""
        directory = self._directory / model.name / FUSIONS_DIR
        fingerprint = _fingerprint(directory)
        if model.live is None or fingerprint == model.fusions:
            return
        model.fusions = fingerprint
        try:
            model.live.fusions = compile_fusions(directory, model.live.manifest)
            log.info("%s: fusions are %s", model.name, ", ".join(model.live.fusions) or "none")
        except Refused as refusal:
            log.warning("%s: new fusions refused, the old ones stay: %s", model.name, refusal)

    def _close_if_drained(self, held: LoadedVersion) -> None:
        model = self._models[held.manifest.model]
        version = held.manifest.version
        if held.leases or model.live is held or model.loaded.get(version) is not held:
            return
        del model.loaded[version]
        self._enter(model, version, "closed")
        self._metrics.forget(self._metrics.leases, model.name, version)
        closed = [v for v, status in model.statuses.items() if status.state == "closed"]
        for old in sorted(closed)[:-_CLOSED_KEPT]:
            del model.statuses[old]
            self._metrics.forget(self._metrics.version_state, model.name, old, "closed")

    def _enter(self, model: Model, version: int, state: State, reason: str | None = None) -> None:
        status = model.statuses[version]
        gauge = self._metrics.version_state
        if status.state != "found":
            self._metrics.forget(gauge, model.name, version, status.state)
        gauge.labels(model.name, version, state).set(1)
        status.state, status.reason = state, reason


def _fingerprint(directory: Path) -> Fingerprint:
    """Names, sizes and times of the files of a directory: changes whenever one of them does."""
    if not directory.is_dir():
        return frozenset()
    return frozenset(_look(path) for path in directory.iterdir())


def _look(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()  # through links: a file that is linked in may change elsewhere
    except OSError:
        stat = path.lstat()  # a link that leads nowhere
    return path.name, stat.st_size, stat.st_mtime_ns
