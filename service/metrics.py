"""Every metric of the service, in one place, on a registry of its own.

Several workers count in files of their own, in the directory that they share; whichever is asked
for `/metrics` adds up those of all. A gauge then is a sum over the workers that live.
"""

from __future__ import annotations

import os
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from service.worker import ALONE, Worker

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_ROWS = (1, 10, 20, 50, 100, 200, 300, 500, 750, 1000, 2000, 5000)


_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_CORRELATIONS = (-0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0)
_Mode = Literal["livesum", "livemin", "livemax"]


class Metrics:
    """Counters, gauges and histograms; the rooms count, `/metrics` prints."""

    def __init__(self, worker: Worker = ALONE) -> None:
        self.registry = CollectorRegistry()
        self._shared = worker.run_dir
        if self._shared is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._shared)
            # files by index, not by process: a worker that replaces another counts on in its file
            values.ValueClass = values.MultiProcessValue(lambda: worker.index)  # type: ignore[no-untyped-call]

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"multirank_{name}", about, labels, registry=self.registry)

        def gauge(name: str, about: str, *labels: str, mode: _Mode = "livesum") -> Gauge:
            return Gauge(
                f"multirank_{name}",
                about,
                labels,
                registry=self.registry,
                multiprocess_mode=mode,
            )

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                f"multirank_{name}", about, labels, buckets=buckets, registry=self.registry
            )

        self.answers = counter("answers", "Answers by route and status", "route", "status", "code")
        self.request_seconds = histogram(
            "request_seconds", "From arrival to answer", _SECONDS, "route"
        )
        self.stage_seconds = histogram(
            "stage_seconds", "Time in one part of a request", _SECONDS, "stage"
        )
        self.candidates = histogram("candidates", "Candidates of a request", _ROWS)

        self.feature_rows = counter(
            "feature_rows", "Feature rows by what became of them", "entity", "outcome"
        )
        self.feature_failures = counter(
            "feature_failures", "Requests whose rows could not all be read", "reason"
        )
        self.feature_circuit = gauge(
            "feature_circuit", "1 for the state of the circuit to the feature store", "state"
        )
        self.feature_changes_reported = gauge(
            "feature_changes_reported",
            "1 while the feature store reports changes; else rows are believed for half a second",
            mode="livemin",
        )
        self.degraded_answers = counter("degraded_answers", "Degraded answers", "reason")

        self.decisions = counter(
            "decisions", "Decisions sampled for the log, by what became of them", "model", "outcome"
        )
        self.decision_files = counter(
            "decision_log_files", "Files of the decision log, by what was done to them", "event"
        )

        self.item_cache = counter(
            "item_cache_rows", "Candidate rows by item tensor cache outcome", "model", "outcome"
        )
        self.item_cache_evictions = counter(
            "item_cache_evictions", "Item tensors driven out", "model"
        )
        self.item_cache_bytes = gauge("item_cache_bytes", "Bytes of item tensors kept", "model")

        self.run_rows = histogram("run_rows", "Candidate rows of one run", _ROWS, "model")
        self.run_requests = histogram(
            "run_requests", "Requests in one run", (1, 2, 4, 8, 16, 32, 64), "model"
        )
        self.run_seconds = histogram("run_seconds", "Time of one run", _SECONDS, "model")
        self.run_failures = counter("run_failures", "Runs that threw", "model")
        self.queued_rows = gauge("queued_rows", "Candidate rows waiting", "model")
        self.dropped = counter(
            "dropped_requests", "Requests dropped before they cost a run", "model", "reason"
        )
        self.non_finite = counter(
            "non_finite_scores", "Items with a NaN or infinite score", "model"
        )

        self.version_state = gauge(
            "version_state",
            "Workers with a version in that state",
            "model",
            "version",
            "state",
        )
        self.versions_refused = counter(
            "versions_refused", "Versions not let in", "model", "reason"
        )
        self.fusions_refused = counter(
            "fusions_refused", "Fusion files and rules not let in", "model", "fusion"
        )
        self.fusion_changes = counter(
            "fusion_changes", "Times another formula went live", "model", "fusion"
        )
        self.deployment_generation = gauge(
            "deployment_generation",
            "Generation of the deployment file that every worker follows",
            "model",
            mode="livemin",
        )
        self.deployments_refused = counter(
            "deployments_refused", "Deployment files that could not be read", "model"
        )
        self.model_problems = gauge(
            "model_problem",
            "1 while a model's directory or deployment file cannot be followed by every worker",
            "model",
            mode="livemax",
        )
        self.compared = counter(
            "compared", "Answered requests by what became of comparing them", "model", "outcome"
        )
        self.compared_overlap = histogram(
            "compared_overlap", "Share of stable's top k in the new one's", _SHARES, "model"
        )
        self.compared_tau = histogram(
            "compared_tau", "Kendall's tau of both versions' rankings", _CORRELATIONS, "model"
        )
        self.compared_psi = gauge(
            "compared_psi",
            "Population stability index of a task's scores, largest of the workers",
            "model",
            "task",
            mode="livemax",
        )
        self.compared_latency = gauge(
            "compared_latency_ratio",
            "Time that the new version takes over stable's, largest of the workers",
            "model",
            mode="livemax",
        )
        self.canary_decisions = counter(
            "canary_decisions", "Canaries that were ended by the guard", "model", "decision"
        )
        self.swaps = counter("swaps", "Times another version went live", "model")
        self.leases = gauge("leases", "Requests holding a version", "model", "version")

    def text(self) -> bytes:
        """The Prometheus exposition format, of all workers together."""
        if self._shared is None:
            return generate_latest(self.registry)
        every_worker = CollectorRegistry()
        MultiProcessCollector(every_worker, str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(every_worker)

    def forget(self, gauge: Gauge, *labels: object) -> None:
        """Drop a label set that is no more; beside other workers it stays, as a zero."""
        if self._shared is None:
            gauge.remove(*labels)
        else:
            gauge.labels(*labels).set(0)
