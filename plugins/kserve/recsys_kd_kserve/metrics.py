"""Prometheus metrics of a server, read from its services when they are asked for."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from recsys_kd.runtime.service import Service
from recsys_kd.runtime.telemetry import SECONDS, Histogram
from recsys_kd.runtime.watcher import REASONS
from recsys_kd.schema import ITEM

if TYPE_CHECKING:
    from recsys_kd_kserve.repository import Repository

PREFIX = "recsys_kd_"


class Family:
    """Collects samples of one kind of metric, by name."""

    def __init__(self) -> None:
        self.found: dict[str, Metric] = {}

    def count(self, name: str, text: str, value: float, **labels: str) -> None:
        """Add a counter's value."""
        made = self.found.setdefault(name, CounterMetricFamily(PREFIX + name, text, labels=list(labels)))
        made.add_metric(list(labels.values()), value)  # type: ignore[attr-defined]

    def gauge(self, name: str, text: str, value: float, **labels: str) -> None:
        """Add a gauge's value."""
        made = self.found.setdefault(name, GaugeMetricFamily(PREFIX + name, text, labels=list(labels)))
        made.add_metric(list(labels.values()), value)  # type: ignore[attr-defined]

    def histogram(self, name: str, text: str, value: Histogram, **labels: str) -> None:
        """Add a histogram."""
        made = self.found.setdefault(name, HistogramMetricFamily(PREFIX + name, text, labels=list(labels)))
        made.add_metric(list(labels.values()), value.cumulative(), value.sum)  # type: ignore[attr-defined]


class Metrics(Collector):
    """What one server's models and protocols did."""

    def __init__(self, repository: "Repository") -> None:
        self.repository = repository
        self._lock = threading.Lock()
        self._took = {protocol: Histogram(SECONDS) for protocol in ("rest", "grpc")}
        self._refused: Counter[tuple[str, int]] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def took(self, protocol: str, seconds: float) -> None:
        """Count a scoring request, answered or refused, and its time in this process."""
        with self._lock:
            self._took[protocol].add(seconds)

    def refused(self, protocol: str, status: int) -> None:
        """Count a refusal by its HTTP status (gRPC's by the one that it stands for)."""
        with self._lock:
            self._refused[protocol, status] += 1

    def render(self) -> tuple[bytes, str]:
        """Return all metrics, the process's own included, and their content type."""
        return generate_latest(self._registry) + generate_latest(REGISTRY), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        family = Family()
        with self._lock:
            for protocol, took in self._took.items():
                text = "Scoring requests, from their arrival to their answer"
                family.histogram("request_seconds", text, took, protocol=protocol)
            for (protocol, status), n in sorted(self._refused.items()):
                family.count("refused_requests", "Requests refused", n, protocol=protocol, status=str(status))
        for name, model in sorted(self.repository.models.items()):
            _watching(family, name, model.service)
            _scoring(family, name, model.service)
            _shadow(family, name, model.service)
        yield from family.found.values()


def _watching(family: Family, model: str, service: Service) -> None:
    watcher = service.watcher
    serving = watcher.serving
    family.gauge("active_version", "Version that answers", serving.champion.number, model=model)
    for live in serving.resident():
        labels = {"model": model, "version": str(live.number), "digest": live.digest[:12]}
        family.gauge("resident_version", "Versions in memory", 1, **labels)
    family.gauge("epoch", "The registry's epoch as of what answers", watcher.epoch, model=model)
    family.count("swaps", "Versions taken over, the first one included", watcher.swaps, model=model)
    # From nought on: Prometheus sees no increase in a counter that is born at 1.
    for reason in sorted({*REASONS, *watcher.refusals}):
        n = watcher.refusals.get(reason, 0)
        family.count("refusals", "Versions and registries refused", n, model=model, reason=reason)
    if watcher.answered_at is not None:
        age = time.time() - watcher.answered_at
        family.gauge("registry_age_seconds", "Since the registry answered last", age, model=model)


def _scoring(family: Family, model: str, service: Service) -> None:
    resident = {live.number: live for live in service.watcher.serving.resident()}
    service.stats.keep(set(resident))
    family.count("bad_requests", "Requests that a model could not take", service.stats.bad_requests, model=model)
    text = "Canary requests that the champion answered, since the challenger could not"
    family.count("canary_failed", text, service.stats.canary_failed, model=model)
    for number, found in sorted(service.stats.versions.items()):
        labels = {"model": model, "version": str(number)}
        family.count("answers", "Requests answered", found.requests, **labels)
        family.count("candidates", "Candidates scored", found.candidates, **labels)
        family.histogram("score_seconds", "Scoring alone, without protocol", found.seconds, **labels)
        family.histogram("probability", "Probabilities given, 64 of a request at most", found.scores, **labels)
        fallbacks = dict(resident[number].ranker.fallback_counts)
        for field, n in sorted(fallbacks.items()):
            family.count("fallbacks", "Ids without a row of their own", n, field=field, **labels)
        share = fallbacks.get(ITEM, 0) / max(1, found.candidates)
        family.gauge("fallback_share", "Share of candidates without a row of their own", share, **labels)


def _shadow(family: Family, model: str, service: Service) -> None:
    shadow = service.shadow
    if shadow is None:
        return
    for outcome in ("compared", "dropped", "failed", "not_kept"):
        text = "Requests shown to the challenger"
        family.count("shadow_requests", text, getattr(shadow, outcome), model=model, outcome=outcome)
    text = "Mean difference of probabilities per request, challenger to champion"
    family.histogram("shadow_difference", text, shadow.differences, model=model)
    family.histogram("shadow_seconds", "The challenger's scoring alone", shadow.seconds, model=model)
