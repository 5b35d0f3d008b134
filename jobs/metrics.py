"""Prometheus metrics, read from the board when they are asked for: the same from whichever process serves them."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.board import Board, BoardUnreachable
from jobs.config import JobsConfig
from jobs.machine import OVER, STAGES


class Nights(Collector):
    """The nights of a board as metrics; `recsys_kd_board_up` 0 and nothing else where Redis does not answer."""

    def __init__(self, config: JobsConfig) -> None:
        self.config = config

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        up = GaugeMetricFamily("recsys_kd_board_up", "Whether the nights' state can be read")
        try:
            yield from self._read()
            up.add_metric([], 1)
        except BoardUnreachable:
            up.add_metric([], 0)
        yield up

    def _read(self) -> Iterator[Metric]:
        board = Board(self.config.state)
        nights, counters, now = board.all(), board.counters(), board.now()
        phases = GaugeMetricFamily("recsys_kd_nights", "Nights by model and phase", labels=["model", "phase"])
        for (model, phase), number in sorted(Counter((n.model, n.phase) for n in nights).items()):
            phases.add_metric([model, phase], number)
        waiting = GaugeMetricFamily(
            "recsys_kd_oldest_open_night_seconds", "Since the oldest open night was wanted", labels=["model"]
        )
        for model in sorted({n.model for n in nights}):
            opened = [n.created for n in nights if n.model == model and n.phase not in OVER]
            waiting.add_metric([model], now - min(opened) if opened else 0.0)
        yield from (phases, waiting)
        for what, text in (("done", "Stages done"), ("failed", "Stages failed"), ("seconds", "Seconds of done stages")):
            family = CounterMetricFamily(f"recsys_kd_stage_{what}", text, labels=["stage"])
            for stage in STAGES:
                family.add_metric([stage], counters.get(f"{stage}_{what}", 0.0))
            yield family


def serve(config: JobsConfig) -> None:
    """Serve the metrics on 127.0.0.1 where a port is configured; the port taken means that another worker does."""
    if config.metrics_port is None:
        return
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Nights(config))
    try:
        start_http_server(config.metrics_port, addr="127.0.0.1", registry=registry)
    except OSError:
        return
