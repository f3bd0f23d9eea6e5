"""The client: `record` never waits; a receipt says when the event is on disk; two threads do the rest.

    record -> queue -> [writer thread: append, one sync for all that waited] -> spool on disk, accepted
                                                  [sender thread: a batch] -> Kafka or files, delivered, deleted

Accepted means that the receipt is done: from then on neither a kill nor a power cut loses the event. It is delivered at
least once, always with the id that it got in `record`; a run counts it once.
"""

import atexit
import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import NotAccepted, TallyflowError
from .event import event_line
from .senders import Form, Sender, sender_of
from .spool import Segment, Spool

_log = logging.getLogger("tallyflow.client")

_RETRY_S_FIRST, _RETRY_S_MAX = 0.1, 30.0
"""How long to wait before a batch is tried again: twice as long each time."""

_STOP_S = 1.0


@dataclass(frozen=True, slots=True)
class Stats:
    """Events so far in this process; `delivered` counts those of clients before it too."""

    accepted: int = 0
    """On disk."""
    delivered: int = 0
    refused: int = 0
    """Not accepted: the queue or the spool was full, or the disk failed. The caller was told of each."""
    retries: int = 0
    spool_bytes: int = 0
    """Accepted and not delivered."""
    last_error: str = ""


@dataclass(slots=True)
class _Group:
    """Events that wait for the same sync."""

    receipt: Future[None] = field(default_factory=Future)
    lines: list[bytes] = field(default_factory=list)
    bytes: int = 0


class Client:
    """Sends an application's events to Tallyflow. Make one a process, after any fork; use it from any thread."""

    def __init__(
        self,
        to: str | Sender,
        spool: str | Path,
        *,
        source: str,
        form: Form = "ndjson",
        kafka: Mapping[str, str] | None = None,
        batch_ms: int = 200,
        batch_bytes: int = 512 * 1024,
        queue_bytes_max: int = 16 * 1024 * 1024,
        spool_bytes_max: int = 1024 * 1024 * 1024,
    ) -> None:
        """`to`: kafka://BROKER/TOPIC or file:///FOLDER. `spool`: a folder on a local disk, which clients may share.

        `source` says who speaks, such as gateway/eu-1: with the id it is the identity of an event. `kafka` are
        settings for librdkafka. A batch is sent when it has `batch_bytes`, or is `batch_ms` old.
        Raises ConfigError, StateError.
        """
        self._sender = sender_of(to, form, kafka or {}) if isinstance(to, str) else to
        self._spool = Spool(Path(spool), batch_bytes)
        self._source, self._batch_s = source, batch_ms / 1000
        self._queue_bytes_max, self._spool_bytes_max = queue_bytes_max, spool_bytes_max
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._group = _Group()
        self._queue_bytes = 0
        self._stats = Stats()
        self._closing, self._stopped = False, threading.Event()
        self._writer = threading.Thread(target=self._write, name="tallyflow-spool", daemon=True)
        self._deliverer = threading.Thread(target=self._deliver, name="tallyflow-deliver", daemon=True)
        self._writer.start()
        self._deliverer.start()
        atexit.register(self.close)

    def record(
        self,
        usage: Mapping[str, int],
        *,
        customer: str,
        id: str | None = None,
        time: datetime | None = None,
        source: str | None = None,
        **dimensions: str,
    ) -> Future[None]:
        """Takes an event without waiting for anything; the receipt is done when the event is on disk.

        `id`: give what makes the event the same if it is recorded again (the id of the response), else it gets a random
        one. `dimensions`: project, feature, model, region, service_tier. Raises EventError for what a run would
        reject, NotAccepted if queue or spool are full; the receipt raises StateError if the disk fails.
        """
        line = event_line(usage, source or self._source, id, time, {"customer": customer, **dimensions})
        if os.getpid() != self._pid:
            raise NotAccepted("this client was made before a fork, and its threads stayed behind: make one after it")
        with self._work:
            if self._closing:
                raise NotAccepted("the client is closed")
            full = self._queue_bytes + len(line) > self._queue_bytes_max
            if full or self._queue_bytes + self._spool.waiting_bytes + len(line) > self._spool_bytes_max:
                self._stats = replace(self._stats, refused=self._stats.refused + 1)
                what = "queue in memory" if full else f"spool ({self._stats.last_error or 'nothing is delivered'})"
                raise NotAccepted(f"the {what} is full: the event was not taken")
            group = self._group
            group.lines.append(line)
            group.bytes += len(line)
            self._queue_bytes += len(line)
            self._work.notify_all()
        return group.receipt

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until all that was recorded is delivered; whether it is."""
        with self._work:
            return self._work.wait_for(lambda: not self._queue_bytes and not self._spool.waiting_bytes, timeout_s)

    def stats(self) -> Stats:
        with self._lock:
            return replace(self._stats, spool_bytes=self._spool.waiting_bytes)

    def close(self, timeout_s: float = 10.0) -> None:
        """Takes no more, and delivers for up to `timeout_s`; what is left stays on disk for the next client to send."""
        atexit.unregister(self.close)
        if self._closing or os.getpid() != self._pid:
            return
        with self._work:
            self._closing = True
            self._work.notify_all()
        self._writer.join(timeout_s)
        self.flush(timeout_s)
        self._stopped.set()
        with self._work:
            self._work.notify_all()
        self._deliverer.join(_STOP_S)  # a batch that is on its way for longer stays in the spool, and is sent once more

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- The writer thread ----

    def _write(self) -> None:
        while True:
            with self._work:
                self._work.wait_for(lambda: self._group.lines or self._closing)
                group, self._group = self._group, _Group()
            if not group.lines:
                return
            try:
                self._spool.append(group.lines)
            except (TallyflowError, OSError) as error:
                _log.error("%d events were not accepted: %s", len(group.lines), error)
                self._settle(group, refused=len(group.lines), error=str(error))
                group.receipt.set_exception(error)
            else:
                self._settle(group, accepted=len(group.lines))
                group.receipt.set_result(None)

    def _settle(self, group: _Group, accepted: int = 0, refused: int = 0, error: str = "") -> None:
        with self._work:
            self._queue_bytes -= group.bytes
            self._stats = replace(
                self._stats,
                accepted=self._stats.accepted + accepted,
                refused=self._stats.refused + refused,
                last_error=error or self._stats.last_error,
            )
            self._work.notify_all()

    # ---- The sender thread ----

    def _deliver(self) -> None:
        retry_s = _RETRY_S_FIRST
        while not self._stopped.is_set():
            with self._work:
                self._work.wait_for(lambda: self._spool.waiting_bytes or self._stopped.is_set())
                # Until the batch is full, old enough, or nothing more can come.
                self._work.wait_for(lambda: self._spool.has_full() or self._closing, self._batch_s)
            try:
                segment = self._spool.next()
                if segment is not None:
                    self._send(segment)
                    retry_s = _RETRY_S_FIRST
            except (TallyflowError, OSError) as error:
                self._failed(error)
                with self._work:
                    self._work.wait_for(lambda: self._closing, retry_s)
                self._stopped.wait(_RETRY_S_FIRST)
                retry_s = min(retry_s * 2, _RETRY_S_MAX)
        self._sender.close()
        self._spool.close()

    def _send(self, segment: Segment) -> None:
        """Raises DeliveryError, StateError."""
        lines, damaged = segment.lines()
        if damaged:
            aside = self._spool.keep_damaged(segment)
            _log.error("%d events of the spool are damaged on disk; the file is kept as %s", damaged, aside)
        if lines:
            self._sender.send(segment.name, lines)
        self._spool.done(segment)
        with self._work:
            if self._stats.last_error:
                _log.info("events are delivered again")
            self._stats = replace(self._stats, delivered=self._stats.delivered + len(lines), last_error="")
            self._work.notify_all()

    def _failed(self, error: Exception) -> None:
        if not self._stats.last_error:
            _log.warning("events are kept and will be sent again: %s", error)
        with self._work:
            self._stats = replace(self._stats, retries=self._stats.retries + 1, last_error=str(error))
