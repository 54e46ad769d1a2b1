"""Prometheus metrics, in a registry of each application's own."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from .service import Service

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts requests and times stages."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("relight_requests", "Requests answered", ["method", "route", "status"], registry=self.registry)
        self.duration = Histogram("relight_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=self.registry)
        self.stages = Histogram("relight_stage_seconds", "Time by stage of work", ["stage"], buckets=SECONDS, registry=self.registry)
        self.errors = Counter("relight_errors", "Errors by code", ["code"], registry=self.registry)

    def observe(self, stage: str, seconds: float) -> None:
        """A stage that took so long."""
        self.stages.labels(stage).observe(seconds)

    def watch(self, service: "Service") -> None:
        """Gauges that look at the service when asked."""
        for name, text, look in (
            ("relight_work_pending", "Work waiting or running", lambda: service.pool.pending),
            ("relight_analyses_pending", "Analyses waiting or running", lambda: service.analysis_pool.pending),
            ("relight_cache_bytes", "Bytes of prepared pictures in memory", lambda: service.cache.nbytes),
            ("relight_ready", "1 when models are loaded", lambda: int(service.engine is not None)),
        ):
            Gauge(name, text, registry=self.registry).set_function(look)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
