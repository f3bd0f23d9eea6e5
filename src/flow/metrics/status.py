"""How a job is, seen from outside: from the metrics of its processes, or else from what its state directory shows."""

import http.client
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ..config import Config
from ..state.directory import StateDirectory
from .depth import Depth, outbox_depth
from .observer import VIEW_TABLES

ANSWER_S = 5.0
_HOLDER = re.compile(r"pid (\d+) on (.*), since ")


@dataclass(frozen=True)
class View:
    """How fresh one view is, in seconds since 1970; None: nothing was published in this run."""

    published_s: float | None
    event_time_s: float | None


@dataclass(frozen=True)
class Measured:
    """What the processes of a job say, added up."""

    version: str
    lineage: str
    processes: int
    answering: int
    trouble: tuple[str, ...]
    """Why results do not get through; empty: they do."""
    events: dict[str, int]
    """Of the lineage, by outcome."""
    read: int
    """In this run."""
    lag_messages: int | None
    """None: the source is not Kafka."""
    lag_s: float | None
    """Of the partition that is furthest behind."""
    watermark_s: float | None
    """The earliest of all shards, in seconds since 1970."""
    outbox: Depth
    outbox_limit_bytes: int
    fingerprints: int
    dedup_memory_bytes: int
    memory_bytes: int
    """Of all processes, resident."""
    retries: int
    views: dict[str, View]
    anomalies_open: dict[str, int] | None
    """In the store, of each kind; None: it was not asked yet."""


@dataclass(frozen=True)
class Status:
    """How a job is at one moment."""

    at_s: float
    holder: str
    """Who works, or has last worked and did not end well, in the state directory; empty: nobody does."""
    running: bool | None
    """None: the holder is another machine's."""
    lineage: str
    outbox: Depth
    measured: Measured | None
    """None: no process answers."""
    why_not: str
    """Why nothing is measured."""

    def as_json(self) -> str:
        """One object."""
        return json.dumps(self, default=vars, indent=1)


def status_of(config: Config) -> Status:
    """Looks once. Raises StateError if the lineage cannot be read."""
    directory = StateDirectory(config.state_dir)
    holder = _holder(config.state_dir / "LOCK")
    lineage = directory.existing_lineage()
    measured, why_not = None, "no `metrics` in the config"
    if config.metrics is not None:
        measured = _measured(_Scrape.of(config))
        why_not = "" if measured is not None else f"nobody answers at {config.metrics.listen}"
    return Status(
        time.time(),
        holder,
        True if measured is not None else _runs(holder),
        lineage.id if lineage is not None else "",
        outbox_depth(directory.outbox),
        measured,
        why_not,
    )


def _holder(lock: Path) -> str:
    # The lock itself is not tried: a job that starts at this moment would find it taken.
    with suppress(OSError):
        return lock.read_text(errors="replace").strip()
    return ""


def _runs(holder: str) -> bool | None:
    match = _HOLDER.match(holder)
    if match is None:
        return False
    if match[2] != socket.gethostname():
        return None
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's, so it is there
        return True
    return True


# ---- From the metrics ----


@dataclass
class _Scrape:
    """The samples of all processes that answered."""

    samples: list[tuple[str, dict[str, str], float]] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    answering: int = 0
    processes: int = 1

    @classmethod
    def of(cls, config: Config) -> "_Scrape":
        """Asks the first process, which knows how many there are, then the others."""
        assert config.metrics is not None  # asked for by the caller
        found = cls()
        process = 0
        while process < found.processes:
            host, port = config.metrics.address(process)
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
            try:
                found.add(_get(host, port, "/metrics")[1], *_get(host, port, "/readyz"))
            except (OSError, http.client.HTTPException) as error:
                found.trouble.append(f"process {process} does not answer ({error})")
            process += 1
        return found

    def add(self, text: str, status: int, ready: str) -> None:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.samples.append((sample.name, sample.labels, sample.value))
                self.processes = max(self.processes, int(sample.labels.get("processes", 1)))
        if status != 200:
            self.trouble += [line for line in ready.splitlines() if line not in self.trouble]
        self.answering += 1

    def of_name(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        for found, given, value in self.samples:
            if found == f"tallyflow_{name}" and labels.items() <= given.items():
                yield given, value

    def values(self, name: str, **labels: str) -> list[float]:
        return [value for _, value in self.of_name(name, **labels)]

    def total(self, name: str, **labels: str) -> int:
        return round(sum(self.values(name, **labels)))


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(host, port, timeout=ANSWER_S)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def _least(values: Iterable[float]) -> float | None:
    return min(values, default=None)


def _measured(scrape: _Scrape) -> Measured | None:
    if not scrape.answering:
        return None
    info = next(labels for labels, _ in scrape.of_name("info"))
    lags = scrape.values("source_lag_messages")
    ages_s = scrape.values("source_lag_seconds")
    return Measured(
        info["version"],
        info["lineage"],
        scrape.processes,
        scrape.answering,
        tuple(scrape.trouble),
        {labels["outcome"]: scrape.total("lineage_events", **labels) for labels, _ in scrape.of_name("lineage_events")},
        scrape.total("events_read_total"),
        round(sum(lags)) if lags else None,
        max(ages_s, default=None),
        _least(scrape.values("watermark_timestamp_seconds")),
        Depth(
            scrape.total("outbox_blocks"),
            scrape.total("outbox_bytes"),
            max(scrape.values("outbox_oldest_block_age_seconds")),
        ),
        round(max(scrape.values("outbox_limit_bytes"))),
        scrape.total("dedup_fingerprints"),
        scrape.total("dedup_memory_bytes"),
        round(sum(value for name, _, value in scrape.samples if name == "process_resident_memory_bytes")),
        scrape.total("publish_retries_total"),
        {
            view: View(
                _least(scrape.values("view_published_timestamp_seconds", view=view)),
                _least(scrape.values("view_event_timestamp_seconds", view=view)),
            )
            for view in VIEW_TABLES
        },
        _open(scrape),
    )


def _open(scrape: _Scrape) -> dict[str, int] | None:
    """Each process tells what the whole store has."""
    found: dict[str, int] = {}
    for labels, value in scrape.of_name("anomalies_open"):
        found[labels["kind"]] = max(found.get(labels["kind"], 0), round(value))
    return found or None
