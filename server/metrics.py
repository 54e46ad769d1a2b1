"""Prometheus metrics, in a registry of each application's own; over several processes they add up.

Each process leaves its numbers beside its mark of life, twice a second while they change. Whoever is asked adds the
others' to its own; those of the dead are kept as one sum while any process lives, so that no counter falls.
"""

import json
import logging
import time
from typing import Any, Callable, Dict, Iterable, List, Tuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

log = logging.getLogger("relight")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class StageTimer:
    """Seconds by stage."""

    def __init__(self, observe: Callable[[str, float], None], digits: int = 5):
        self.seconds: Dict[str, float] = {}
        self._observe, self._digits, self._last = observe, digits, time.perf_counter()

    def lap(self, stage: str) -> None:
        """The stage that ends now."""
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, self._digits)
        self._observe(stage, now - self._last)
        self._last = now


class Metrics:
    """Counts requests and times stages."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "relight_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.duration = Histogram(
            "relight_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.stages = Histogram(
            "relight_stage_seconds", "Time by stage of work", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self.errors = Counter("relight_errors", "Errors by code", ["code"], registry=self.registry)

    def observe(self, stage: str, seconds: float) -> None:
        """A stage that took so long."""
        self.stages.labels(stage).observe(seconds)

    def gauge(self, name: str, text: str, look: Callable[[], float]) -> None:
        """A gauge that looks when asked."""
        Gauge(name, text, registry=self.registry).set_function(look)

    def numbers(self) -> "Numbers":
        """Every number of this process."""
        return [
            [s.name, sorted(s.labels.items()), s.value]
            for family in self.registry.collect()
            for s in family.samples
            if not s.name.endswith("_created")
        ]

    def dump(self) -> bytes:
        """The same as bytes, for the other processes."""
        return json.dumps(self.numbers()).encode()

    def text(self, others: Iterable[Tuple[bytes, bool]] = ()) -> bytes:
        """The exposition format: this process and the dumps of others, added; of the dead, what only ever grows."""
        total = add([self.numbers(), *(_read(dump, alive) for dump, alive in others)])
        families: List[Metric] = []
        for family in self.registry.collect():
            names = {s.name for s in family.samples} | {
                family.name + e for e in ("", "_total", "_sum", "_count", "_bucket")
            }
            whole = Metric(family.name, family.documentation, family.type)
            for (name, labels), value in total.items():
                if name in names:
                    whole.add_sample(name, dict(labels), value)
            families.append(whole)
        return generate_latest(_Sum(families))


Numbers = List[List[Any]]  # [name, [[label, value], ...], number]
GROWING = (
    "_total",
    "_sum",
    "_count",
    "_bucket",
)  # how the names of counters and histograms end; all else only the living have


def add(parts: Iterable[Numbers]) -> Dict[Tuple[str, Tuple[Tuple[str, str], ...]], float]:
    """The sum, by name and labels; buckets stay in their order."""
    total: Dict[Tuple[str, Tuple[Tuple[str, str], ...]], float] = {}
    for part in parts:
        for name, labels, value in part:
            key = (str(name), tuple((str(k), str(v)) for k, v in labels))
            total[key] = total.get(key, 0.0) + float(value)
    return total


def _read(dump: bytes, alive: bool) -> Numbers:
    """The numbers of a dump, of the dead only what grows; none where it is damaged, as a power cut leaves it."""
    try:
        numbers = json.loads(dump)
        add([numbers])
        return [n for n in numbers if alive or str(n[0]).endswith(GROWING)]
    except (ValueError, TypeError):
        log.warning("metrics: the numbers of another process are damaged")
        return []


def add_dumps(dumps: Iterable[bytes]) -> bytes:
    """The sum of what `dump` gave; what only the living have is left out."""
    total = add(_read(d, alive=False) for d in dumps)
    return json.dumps([[name, labels, value] for (name, labels), value in total.items()]).encode()


class _Sum:
    """What `generate_latest` takes for a registry."""

    def __init__(self, families: List[Metric]):
        self._families = families

    def collect(self) -> List[Metric]:
        """All families."""
        return self._families
