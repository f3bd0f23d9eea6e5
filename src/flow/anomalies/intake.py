"""What arrived while the watermark was in one hour: outcomes, sources, and the sizes of requests of a sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config import Anomalies
from .found import SPIKE_RULE, UNIT, Found, Kind, leveled, shared, silence
from .levels import STEPS, levels_of, steps_of
from .rules import above, gone, share
from .series import Name, Series, hash_of, packed, unpacked
from .tally import Tally, added_up

SAMPLED_MAX = 64
"""At the least, one event in so many, chosen by fingerprint, is looked at for its size."""
_SAMPLES_AN_HOUR = 1 << 14
SAMPLES_MIN = 24
SPREAD_MAX = 2**14
"""Spreads are variances of levels; a larger one is as good as this."""
_SPREAD_HOURS_MIN = 8
_EVEN = 3  # times less spread than usual
_PENDING_MAX = 1 << 16


class Intake:
    """The open hour of one writer, and what is usual."""

    def __init__(self, settings: Anomalies) -> None:
        self._settings = settings
        most = settings.tracked_max
        self._stream = Series((), ("rejected", "read", "out", "hours"), 1)
        self._sources = Series(
            ("events",), ("streak", "quiet", "out", "duplicate", "judged", "duplicate_out", "hours"), most
        )
        self._requests = Series(("events", "spread"), ("out",), most)
        self._hour = -1
        self._found: list[Found] = []
        self.closed = False
        """Whether an hour was closed since somebody has set this to False."""
        self._begin(-1)
        self.sampled = SAMPLED_MAX
        """One event in so many is looked at in this hour: a power of 2, by how many there were in the hour before."""

    def _begin(self, hour: int) -> None:
        self._hour = hour
        self._read = self._rejected = 0
        self._of_source: dict[str, list[int]] = {}
        self._sizes = Tally(3)
        self._pending: list[tuple[Any, Any]] = []
        self._pending_rows = 0
        self._names: dict[Name, int] = {}  # of (customer, project), the keys of their sizes

    def enter(self, hour: int) -> None:
        """The watermark is in this hour now: an earlier one is closed."""
        if hour > self._hour:
            if self._hour >= 0:
                self._close()
                judged = sum(events for events, _ in self._of_source.values())
                wanted = (judged // _SAMPLES_AN_HOUR).bit_length()
                self.sampled = min(1 << wanted, SAMPLED_MAX)
            self._begin(hour)

    def count(self, read: int, rejected: int) -> None:
        """Events of the hour, and how many of them were rejected."""
        self._read += read
        self._rejected += rejected

    def count_sources(self, names: Sequence[str], judged: Sequence[int], duplicate: Sequence[int]) -> None:
        """Events of each source that were judged, and how many of them were duplicates."""
        for name, events, repeats in zip(names, judged, duplicate, strict=True):
            sums = self._of_source.setdefault(name, [0, 0])
            sums[0] += events
            sums[1] += repeats
        if len(self._of_source) > 2 * self._settings.tracked_max:
            ranked = sorted(self._of_source, key=lambda name: hash_of((name,)))
            self._of_source = {name: self._of_source[name] for name in ranked[: self._settings.tracked_max]}

    def add_sizes(self, names: Sequence[Name], who: Any, sizes: Any) -> None:
        """Sampled requests: the place of (customer, project) among names, and the quantity of all meters, of each."""
        numbers = self._names
        keys = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)[who]
        levels = levels_of(sizes).astype(np.int64) + 1
        self._pending.append((keys, np.stack([np.ones_like(levels), levels, levels**2], axis=1)))
        self._pending_rows += len(keys)
        if self._pending_rows > _PENDING_MAX:
            self._gather()

    def _gather(self) -> None:
        if self._pending:
            keys, sums = (np.concatenate(column) for column in zip(*self._pending, strict=True))
            self._sizes.add(keys, sums)
            self._pending, self._pending_rows = [], 0
        most = self._settings.tracked_max
        if len(self._names) <= most:
            return
        names = list(self._names)  # keys are places in it
        stay = sorted(range(len(names)), key=lambda n: hash_of(names[n]))[:most]
        place = np.full(len(names), -1, np.int64)
        place[stay] = np.arange(len(stay))
        self._names = {names[n]: new for new, n in enumerate(stay)}
        kept = place[self._sizes.keys]
        self._sizes.keys, self._sizes.sums = added_up(kept[kept >= 0], self._sizes.sums[kept >= 0])

    def take(self) -> list[Found]:
        """What was found since the last time."""
        found, self._found = self._found, []
        return found

    # -- the rules

    def _close(self) -> None:
        self._gather()
        self.closed = True
        self._found += self._rejects() + self._of_sources() + self._loops()

    def _rejects(self) -> list[Found]:
        settings, row = self._settings, self._stream.rows([("",)])
        self._stream.counts["last"][row] = self._hour
        self._stream.counts["hours"][row] += 1
        parts, wholes = np.array([self._rejected]), np.array([self._read])
        found = share(self._stream, "rejected", "read", "out", row, parts, wholes, settings.share_factor)
        if not found.told[0]:
            return []
        rule = f"rejected events over {settings.share_factor} times the usual share"
        return [shared(Kind.REJECT_RATE, self._hour, found, 0, self._rejected, self._read, rule)]

    def _of_sources(self) -> list[Found]:
        if not self._of_source:
            return []
        settings, series, hour = self._settings, self._sources, self._hour
        names, sums = list(self._of_source), np.array(list(self._of_source.values()), np.int64)
        events, repeats = sums[:, 0], sums[:, 1]
        rows = series.rows((name,) for name in names)
        series.counts["last"][rows] = hour
        series.counts["hours"][rows] += 1
        gone_rows, usual = gone(series, "events", rows, settings.silence_hours, steps_of(settings.events_min))
        known = series.names if len(gone_rows) else []
        first = hour - settings.silence_hours + 1
        found = [
            silence(first, settings.silence_hours, usual, n, source=known[row][0]) for n, row in enumerate(gone_rows)
        ]
        shares = share(series, "duplicate", "judged", "duplicate_out", rows, repeats, events, settings.share_factor)
        rule = f"duplicate events over {settings.share_factor} times the usual share"
        for n in np.flatnonzero(shares.told).tolist():
            parts = int(repeats[n]), int(events[n])
            found.append(shared(Kind.DUPLICATE_RATE, hour, shares, n, *parts, rule, source=names[n]))
        levels, steps = levels_of(events), (steps_of(settings.spike_factor), steps_of(settings.peak_factor))
        rates = above(series, "events", "out", rows, levels, *steps, events >= settings.events_min)
        rule = SPIKE_RULE.format("events", settings.spike_factor, settings.peak_factor)
        for n in np.flatnonzero(rates.told).tolist():
            seen, level = int(events[n]) * UNIT, int(levels[n])
            found.append(leveled(Kind.SOURCE_RATE, hour, "events", seen, level, rates, n, UNIT, rule, source=names[n]))
        series.forget(hour)
        return found

    def _loops(self) -> list[Found]:
        """Many more requests than usual that are of much more even size than usual."""
        if not len(self._sizes.keys):
            return []
        settings, series, hour = self._settings, self._requests, self._hour
        every, sums = list(self._names), self._sizes.sums
        names = [every[key] for key in self._sizes.keys.tolist()]
        rows = series.rows(names)
        series.counts["last"][rows] = hour
        count = sums[:, 0]
        # Exact: a level is below 2^10, so that the squares of an hour's sums stay below 2^63 for 2^21 samples.
        few = np.minimum(count, 1 << 21)
        spread = np.where(count > few, SPREAD_MAX, (few * sums[:, 2] - sums[:, 1] ** 2) // (few * few))
        spread = np.minimum(spread, SPREAD_MAX)
        usual = series.usual("spread", rows)
        even = (usual.hours >= _SPREAD_HOURS_MIN) & (_EVEN * spread <= usual.median) & (count >= SAMPLES_MIN)
        levels = levels_of(count * self.sampled)
        loops = above(series, "events", "out", rows, levels, steps_of(settings.loop_factor), STEPS, even)
        series.push("spread", rows[count >= _SPREAD_HOURS_MIN], spread[count >= _SPREAD_HOURS_MIN].astype(np.int16))
        rule = f"requests of even size over {settings.loop_factor} times the usual hour"
        found = []
        for n in np.flatnonzero(loops.told).tolist():
            who = dict(zip(("customer", "project"), names[n], strict=True))
            seen, level = int(count[n]) * self.sampled * UNIT, int(levels[n])
            found.append(leveled(Kind.REQUEST_LOOP, hour, "events", seen, level, loops, n, UNIT, rule, **who))
        series.forget(hour)
        return found

    # -- the snapshot

    def _series(self) -> dict[str, Series]:
        return {"stream": self._stream, "sources": self._sources, "requests": self._requests}

    def dump_usual(self) -> dict[str, Any]:
        """What is usual; it changes only when an hour is closed."""
        return {name: each.dump() for name, each in self._series().items()}

    def dump_open(self) -> dict[str, Any]:
        """The open hour."""
        self._gather()
        sizes = [self._sizes.dump(), packed(list(self._names))]
        counted = {"hour": self._hour, "sampled": self.sampled, "read": self._read, "rejected": self._rejected}
        return {**counted, "sources": self._of_source, "sizes": sizes}

    def load(self, usual: dict[str, Any], opened: dict[str, Any]) -> None:
        """Goes on from the two dumps."""
        for name, each in self._series().items():
            each.load(usual[name])
        self._begin(opened["hour"])
        self._read, self._rejected, self.sampled = opened["read"], opened["rejected"], opened["sampled"]
        self._of_source = {name: list(sums) for name, sums in opened["sources"].items()}
        self._sizes.load(opened["sizes"][0])
        self._names = {tuple(name): n for n, name in enumerate(unpacked(opened["sizes"][1]))}
