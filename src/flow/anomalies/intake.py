"""What arrived while the watermark was in one hour: outcomes, sources, and the sizes of requests of a sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config import Anomalies
from .found import SPIKE_RULE, UNIT, Found, Kind, leveled, shared, silence
from .hours import customers_of, models_of, pair_of
from .levels import STEPS, levels_of, steps_of
from .names import Names, hashes_of_pairs, packed, unpacked
from .rules import above, gone, share
from .series import Series
from .tally import Tally

SAMPLED_MAX = 64
"""At the least, one event in so many, chosen by fingerprint, is looked at for its size."""
_SAMPLES_AN_HOUR = 1 << 14
SAMPLES_MIN = 24
SIZES_MIN = 8
"""Of fewer samples, or in fewer hours, sizes say nothing of what is usual."""
_CELL_BITS = 4  # the levels of a doubling
_CELLS = 1 << _CELL_BITS
_CROWDED = 8
"""So many times the names that are watched may be in an open hour, and so many names be remembered."""


class Intake:
    """The open hour of one writer, and what is usual."""

    def __init__(self, settings: Anomalies) -> None:
        self._settings = settings
        most = settings.tracked_max
        self._stream = Series((), ("rejected", "read", "out", "hours"), 1)
        self._sources = Series(
            ("events",),
            ("streak", "quiet", "out", "events_peak", "duplicate", "judged", "duplicate_out", "hours"),
            most,
        )
        self._requests = Series(("events", "even"), ("out", "events_peak"), most)
        self._names = (Names(), Names(), Names())  # of sources, customers and projects
        self._kept_names: tuple[int, ...] = (0, 0, 0)
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
        self._of_source = Tally(2)  # judged, and duplicate of them
        self._sizes = Tally(1)  # by customer, project, and the level of the size within its doubling

    def enter(self, hour: int) -> None:
        """The watermark is in this hour now: an earlier one is closed."""
        if hour > self._hour:
            if self._hour >= 0:
                self._close()
                wanted = (int(self._of_source.sums[:, 0].sum()) // _SAMPLES_AN_HOUR).bit_length()
                self.sampled = min(1 << wanted, SAMPLED_MAX)
            self._begin(hour)
            self._forget_names()

    def count(self, read: int, rejected: int) -> None:
        """Events of the hour, and how many of them were rejected."""
        self._read += read
        self._rejected += rejected

    def count_sources(self, names: Sequence[str], judged: Any, duplicate: Any) -> None:
        """Events of each source that were judged, and how many of them were duplicates."""
        numbers = self._names[0].numbers(names)
        self._of_source.add(numbers, np.stack([judged, duplicate], axis=1).astype(np.int64))

    def add_sizes(self, customers: tuple[list[str], Any], projects: tuple[list[str], Any], sizes: Any) -> None:
        """Sampled requests: names of customers, and the place of each request's among them; so of projects; and the
        quantity of all meters of each."""
        of_customers, of_projects = self._names[1].numbers(customers[0]), self._names[2].numbers(projects[0])
        pairs = pair_of(of_customers[customers[1]], of_projects[projects[1]])
        cells = levels_of(sizes).astype(np.int64) & (_CELLS - 1)
        self._sizes.add((pairs << _CELL_BITS) + cells, np.ones((len(pairs), 1), np.int64))

    def _hashes(self, pairs: Any) -> Any:
        customers, projects = (names.hashes() for names in self._names[1:])
        return hashes_of_pairs(customers[customers_of(pairs)], projects[models_of(pairs)])

    def _bound(self, times: int) -> None:
        """If there are over `times` the names that are watched: leaves those with the lowest hashes.

        Who is dropped once is dropped each time, and at the latest when the hour is closed.
        """
        most = self._settings.tracked_max
        if len(self._of_source) > times * most:
            self._of_source.keep(_lowest(self._names[0].hashes()[self._of_source.keys], most))
        pairs = np.unique(self._sizes.keys >> _CELL_BITS)
        if len(pairs) > times * most:
            watched = pairs[_lowest(self._hashes(pairs), most)]
            self._sizes.keep(np.isin(self._sizes.keys >> _CELL_BITS, watched))

    def _forget_names(self) -> None:
        """Numbers names anew, without those that nothing is known of."""
        most = _CROWDED * self._settings.tracked_max
        if max(map(len, self._names)) <= most:
            return
        sources, requests = self._sources, self._requests
        of_sources = self._names[0].keep((sources.keys,))
        sources.keys = of_sources[sources.keys]
        firsts, seconds = customers_of(requests.keys), models_of(requests.keys)
        of_customers, of_projects = self._names[1].keep((firsts,)), self._names[2].keep((seconds,))
        requests.keys = pair_of(of_customers[firsts], of_projects[seconds])

    def take(self) -> list[Found]:
        """What was found since the last time."""
        found, self._found = self._found, []
        return found

    # -- the rules

    def _close(self) -> None:
        self.closed = True
        self._bound(1)
        self._found += self._rejects() + self._sources_of() + self._loops()

    def _rejects(self) -> list[Found]:
        settings, row = self._settings, self._stream.rows(np.zeros(1, np.int64))
        self._stream.counts["last"][row] = self._hour
        self._stream.counts["hours"][row] += 1
        parts, wholes = np.array([self._rejected]), np.array([self._read])
        found = share(self._stream, "rejected", "read", "out", row, parts, wholes, settings.share_factor)
        if not found.told[0]:
            return []
        rule = f"rejected events over {settings.share_factor} times the usual share"
        return [shared(Kind.REJECT_RATE, self._hour, found, 0, self._rejected, self._read, rule)]

    def _sources_of(self) -> list[Found]:
        if not len(self._of_source):
            return []
        settings, series, hour = self._settings, self._sources, self._hour
        keys, sums = self._of_source.keys.tolist(), self._of_source.sums
        events, repeats = sums[:, 0], sums[:, 1]
        names = self._names[0].texts()
        rows = series.rows(self._of_source.keys)
        series.counts["last"][rows] = hour
        series.counts["hours"][rows] += 1
        gone_rows, usual = gone(series, "events", rows, settings.silence_hours, steps_of(settings.events_min))
        first, hours = hour - settings.silence_hours + 1, settings.silence_hours
        silent = series.keys[gone_rows].tolist()
        found = [silence(first, hours, usual, n, source=names[key]) for n, key in enumerate(silent)]
        shares = share(series, "duplicate", "judged", "duplicate_out", rows, repeats, events, settings.share_factor)
        rule = f"duplicate events over {settings.share_factor} times the usual share"
        for n in np.flatnonzero(shares.told).tolist():
            parts = int(repeats[n]), int(events[n])
            found.append(shared(Kind.DUPLICATE_RATE, hour, shares, n, *parts, rule, source=names[keys[n]]))
        levels, steps = levels_of(events), (steps_of(settings.spike_factor), steps_of(settings.peak_factor))
        rates = above(series, "events", "out", rows, levels, *steps, events >= settings.events_min)
        rule = SPIKE_RULE.format("events", settings.spike_factor, settings.peak_factor)
        for n in np.flatnonzero(rates.told).tolist():
            seen, level = int(events[n]) * UNIT, int(levels[n])
            found.append(
                leveled(Kind.SOURCE_RATE, hour, "events", seen, level, rates, n, UNIT, rule, source=names[keys[n]])
            )
        series.forget(hour, lambda keys: self._names[0].hashes()[keys])
        return found

    def _loops(self) -> list[Found]:
        """Many more requests than usual, of which many more than usual are of about one size.

        How even sizes are: of 16 cells of a doubling, the share of the two neighbours that have the most. Sizes that
        differ by much fall into any of them; a request that is repeated falls into one or two.
        """
        if not len(self._sizes):
            return []
        settings, series, hour = self._settings, self._requests, self._hour
        keys, place = np.unique(self._sizes.keys >> _CELL_BITS, return_inverse=True)
        cells = np.zeros((len(keys), _CELLS), np.int64)
        cells[place, self._sizes.keys & (_CELLS - 1)] = self._sizes.sums[:, 0]
        rows, count = series.rows(keys), cells.sum(axis=1)
        series.counts["last"][rows] = hour
        shares = (cells + np.roll(cells, 1, axis=1)).max(axis=1) * 100 // count
        usual = series.usual("even", rows)
        even = (usual.hours >= SIZES_MIN) & (2 * shares >= 100 + usual.median) & (count >= SAMPLES_MIN)
        levels = levels_of(count * self.sampled)
        loops = above(series, "events", "out", rows, levels, steps_of(settings.loop_factor), STEPS, even)
        learnt = count >= SIZES_MIN
        series.push("even", rows[learnt], shares[learnt].astype(np.int16))
        rule = f"requests of even size over {settings.loop_factor} times the usual hour"
        found = []
        for n in np.flatnonzero(loops.told).tolist():
            customer, project = (names.texts() for names in self._names[1:])
            who = {"customer": customer[customers_of(int(keys[n]))], "project": project[models_of(int(keys[n]))]}
            seen, level = int(count[n]) * self.sampled * UNIT, int(levels[n])
            found.append(leveled(Kind.REQUEST_LOOP, hour, "events", seen, level, loops, n, UNIT, rule, **who))
        series.forget(hour, self._hashes)
        return found

    # -- the snapshot

    def _series(self) -> dict[str, Series]:
        return {"stream": self._stream, "sources": self._sources, "requests": self._requests}

    def dump_usual(self) -> dict[str, Any]:
        """What is usual; it changes only when an hour is closed."""
        self._kept_names = tuple(map(len, self._names))
        return {
            **{name: each.dump() for name, each in self._series().items()},
            "names": [n.texts() for n in self._names],
        }

    def dump_open(self) -> dict[str, Any]:
        """The open hour."""
        self._bound(_CROWDED)
        new = [each.texts()[kept:] for each, kept in zip(self._names, self._kept_names, strict=True)]
        counted = {"hour": self._hour, "sampled": self.sampled, "read": self._read, "rejected": self._rejected}
        return {**counted, "sources": self._of_source.dump(), "sizes": self._sizes.dump(), "names": packed(new)}

    def load(self, usual: dict[str, Any], opened: dict[str, Any]) -> None:
        """Goes on from the two dumps."""
        for name, each in self._series().items():
            each.load(usual[name])
        self._kept_names = tuple(map(len, usual["names"]))
        for names, kept, new in zip(self._names, usual["names"], unpacked(opened["names"]), strict=True):
            names.load([*kept, *new])
        self._begin(opened["hour"])
        self._read, self._rejected, self.sampled = opened["read"], opened["rejected"], opened["sampled"]
        self._of_source.load(opened["sources"])
        self._sizes.load(opened["sizes"])


def _lowest(hashes: Any, most: int) -> Any:
    """Whether each is among the `most` lowest."""
    chosen = np.zeros(len(hashes), bool)
    chosen[np.argsort(hashes, kind="stable")[:most]] = True
    return chosen
