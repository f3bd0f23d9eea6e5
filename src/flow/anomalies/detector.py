"""Finds what is out of line in the usage of one writer, hour by hour of event time.

An hour of usage is closed when the watermark is `grace` behind its end; an hour of arrivals (what reached the writer
while its watermark was in that hour, duplicates and rejected ones as well) when the watermark leaves it. Neither
depends on where blocks are cut. Each writer sees its share of all events, chosen by fingerprint, and compares it with
the same share of other hours: ratios are what they would be for the whole. docs/decisions/016-anomalies.md
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config import Anomalies
from .found import SPIKE_RULE, UNIT, Found, Kind, leveled, shared, silence
from .intake import Intake
from .levels import NONE, STEPS, levels_of, number_of, steps_of
from .rules import above, between, gone, share
from .series import RING, Series, hash_of, packed, unpacked
from .tally import Tally, added_up, carried, shifted, whole

HOUR_US = 3_600_000_000
PAIRS_PER_CUSTOMER = 4
EVENTS, UNPRICED, QUANTITY, AMOUNT, WIDTH = 0, 1, 2, 5, 8
"""Columns of usage: events, those of them with something unpriced, priced quantity and amount in three limbs each."""
_AMOUNT_BITS = 20  # levels of amounts are of 2^20 femto-units, about a nano-unit
_PRICE_ZERO = 1000  # the level of a price may be negative, that of a ring not
_MODEL_BITS, _PER_BITS = 26, 6
_MODEL_MAX, _PER_MAX = (1 << _MODEL_BITS) - 1, (1 << _PER_BITS) - 1


class Detector:
    """The state of one writer: what is usual, and the hours that are open."""

    def __init__(self, settings: Anomalies) -> None:
        self._settings = settings
        most = settings.tracked_max
        self._customers = Series(
            ("events", "amount"),
            ("streak", "quiet", "out", "amount_out", "unpriced", "judged", "unpriced_out", "hours"),
            most,
        )
        self._pairs = Series((), ("first", "told"), most * PAIRS_PER_CUSTOMER)
        self._models = Series(("price",), ("out",), most)
        self._stream = Series(("events",), (), 1)
        self.intake = Intake(settings)
        self._open: dict[int, Tally] = {}
        self.begun = -1
        """The first hour that is not closed; -1: none was."""
        self._names: tuple[dict[str, int], dict[str, int]] = ({}, {})  # of customers and models in open hours
        self._pers: dict[int, int] = {}
        self._kept = ""

    # -- usage of event-time hours

    def keys(self, customers: Sequence[str], models: Sequence[str], places: Any, per: int) -> Any:
        """int64 keys of (customer, model) pairs, whose places in the two lists are the columns of `places`."""
        ids = [
            np.array([known.setdefault(name, len(known)) for name in names], np.int64)
            for known, names in zip(self._names, (customers, models), strict=True)
        ]
        of_per = self._pers.setdefault(per, len(self._pers))
        pair = (ids[0][places[:, 0]] << _MODEL_BITS) + ids[1][places[:, 1]]
        return (pair << _PER_BITS) + of_per

    def add(self, hour: int, keys: Any, sums: Any, sign: int = 1) -> None:
        """Adds usage rows of WIDTH columns to an hour; if that is closed, they come too late to be looked at."""
        if hour < self.begun:
            return
        tally = self._open.setdefault(hour, Tally(WIDTH))
        tally.add(keys, sums, sign)
        carried(tally.sums, QUANTITY)
        carried(tally.sums, AMOUNT)
        tally.keep(tally.sums.any(axis=1))
        self._bound(tally)

    def _bound(self, tally: Tally) -> None:
        """Drops the customers with the highest hashes, if there are too many. Sums of those that stay are whole: who is
        dropped once would be dropped each time."""
        most = self._settings.tracked_max * PAIRS_PER_CUSTOMER
        if len(tally.keys) <= most:
            return
        names = list(self._names[0])
        ids, counts = np.unique(_customers_of(tally.keys), return_counts=True)
        order = sorted(range(len(ids)), key=lambda n: hash_of((names[ids[n]],)))
        stay = ids[order][np.cumsum(counts[order]) <= most]
        tally.keep(np.isin(_customers_of(tally.keys), stay))

    def open_from(self, watermark_us: Any) -> Any:
        """The first hour that is open at a watermark, or at each of many."""
        return (watermark_us - self._settings.grace_us) // HOUR_US

    def close(self, watermark_us: int) -> list[Found]:
        """Closes the hours that the watermark has passed. What was found since the last time, oldest first."""
        found = self.intake.take()
        begin = self.open_from(watermark_us)
        passed = sorted(hour for hour in self._open if hour < begin)
        for hour in passed:
            tally = self._open.pop(hour)
            if len(tally.keys):
                found += self._close(hour, *self._pairs_of(tally))
        if passed:
            self._forget_names()
        self.begun = max(self.begun, begin)
        return sorted(found, key=lambda row: (row.hour, row.id))

    def _pairs_of(self, tally: Tally) -> tuple[Any, Any]:
        """Keys without the unit of amounts, and sums with all amounts in femto-units, each unit's rounded down."""
        sums = tally.sums
        for per, number in self._pers.items():
            if per != 1:
                for row in np.flatnonzero(tally.keys & _PER_MAX == number):
                    amount = whole(sums, int(row), AMOUNT) // per
                    sums[row, AMOUNT:] = amount & 0xFFFFFFFF, amount >> 32 & 0xFFFFFFFF, amount >> 64
        pairs, sums = added_up(tally.keys >> _PER_BITS << _PER_BITS, sums)
        carried(sums, AMOUNT)
        return pairs, sums

    def _close(self, hour: int, keys: Any, sums: Any) -> list[Found]:
        customers, series = _customers_of(keys), self._customers
        models = keys >> _PER_BITS & _MODEL_MAX
        names = (list(self._names[0]), list(self._names[1]))
        ids, of_customers = added_up(customers, sums)
        carried(of_customers, QUANTITY)
        carried(of_customers, AMOUNT)
        rows = series.rows((names[0][n],) for n in ids)
        series.counts["last"][rows] = hour
        series.counts["hours"][rows] += 1
        seen = _Seen(hour, [(names[0][n],) for n in ids], rows, of_customers)
        pairs = [(names[0][of], names[1][model]) for of, model in zip(customers, models, strict=True)]
        found = self._prices(hour, [(name,) for name in names[1]], models, sums)
        found += self._new_large(hour, pairs, rows[np.searchsorted(ids, customers)], sums)
        if self._is_alive(hour, int(of_customers[:, EVENTS].sum())):
            found += self._silences(hour, rows)
        found += self._spikes(seen)
        found += self._unpriced(seen)
        for each in (series, self._pairs, self._models):
            each.forget(hour)
        self._kept = ""
        return found

    def _forget_names(self) -> None:
        """Numbers the names of open hours anew, without those of closed ones."""
        names = (list(self._names[0]), list(self._names[1]))
        self._names = ({}, {})
        for tally in self._open.values():
            ids, models = _customers_of(tally.keys), tally.keys >> _PER_BITS & _MODEL_MAX
            pairs = [
                np.array([known.setdefault(of[n], len(known)) for n in column], np.int64)
                for known, of, column in zip(self._names, names, (ids, models), strict=True)
            ]
            keys = (((pairs[0] << _MODEL_BITS) + pairs[1]) << _PER_BITS) + (tally.keys & _PER_MAX)
            tally.keys, tally.sums = added_up(keys, tally.sums)

    # -- the rules

    def _is_alive(self, hour: int, events: int) -> bool:
        """Whether there is at least a quarter of the usual stream: if all are silent, it is no customer's silence."""
        row = self._stream.rows([("",)])
        self._stream.counts["last"][row] = hour
        level = levels_of(np.array([events]))
        alive = level > self._stream.usual("events", row).median - 2 * STEPS
        self._stream.push("events", row, level)
        return bool(alive[0])

    def _silences(self, hour: int, rows: Any) -> list[Found]:
        settings = self._settings
        least = steps_of(settings.events_min)
        gone_rows, usual = gone(self._customers, "events", rows, settings.silence_hours, least)
        names = self._customers.names if len(gone_rows) else []
        first = hour - settings.silence_hours + 1
        hours = settings.silence_hours
        return [silence(first, hours, usual, n, customer=names[row][0]) for n, row in enumerate(gone_rows)]

    def _spikes(self, seen: "_Seen") -> list[Found]:
        settings, series = self._settings, self._customers
        steps, peak = steps_of(settings.spike_factor), steps_of(settings.peak_factor)
        judged = seen.sums[:, EVENTS] >= settings.events_min
        by_events = above(series, "events", "out", seen.rows, seen.events, steps, peak, judged)
        by_amount = above(series, "amount", "amount_out", seen.rows, seen.amounts, steps, peak, judged)
        found = []
        for n in np.flatnonzero(by_events.told | by_amount.told).tolist():
            higher = by_amount.told[n] and (
                not by_events.told[n]
                or seen.amounts[n] - by_amount.usual.median[n] >= seen.events[n] - by_events.usual.median[n]
            )
            which, levels, unit = (by_amount, seen.amounts, "amount") if higher else (by_events, seen.events, "events")
            number = whole(seen.sums, n, AMOUNT) if higher else int(seen.sums[n, EVENTS]) * UNIT
            scale = 1 << _AMOUNT_BITS if higher else UNIT
            rule = SPIKE_RULE.format(unit, settings.spike_factor, settings.peak_factor)
            who = {"customer": seen.names[n][0]}
            level = int(levels[n])
            found.append(leveled(Kind.USAGE_SPIKE, seen.hour, unit, number, level, which, n, scale, rule, **who))
        return found

    def _unpriced(self, seen: "_Seen") -> list[Found]:
        settings = self._settings
        parts, wholes = np.minimum(seen.sums[:, UNPRICED], seen.sums[:, EVENTS]), seen.sums[:, EVENTS]
        counters = ("unpriced", "judged", "unpriced_out")
        shares = share(self._customers, *counters, seen.rows, parts, wholes, settings.share_factor)
        rule = f"unpriced events over {settings.share_factor} times the usual share"
        return [
            shared(
                Kind.UNPRICED_RATE, seen.hour, shares, n, int(parts[n]), int(wholes[n]), rule, customer=seen.names[n][0]
            )
            for n in np.flatnonzero(shares.told).tolist()
        ]

    def _new_large(self, hour: int, names: list[tuple[str, str]], customers: Any, sums: Any) -> list[Found]:
        """Models that a customer has not used before this day, and that are large against all that it used."""
        settings, known = self._settings, len(self._pairs)
        rows = self._pairs.rows(names)
        counts = self._pairs.counts
        counts["last"][rows] = hour
        counts["first"][rows] = np.where(rows >= known, hour, counts["first"][rows])
        young = np.flatnonzero((counts["told"][rows] == 0) & (counts["first"][rows] > hour - RING))
        young = young[sums[young, EVENTS] >= settings.events_min]
        found, steps = [], steps_of(settings.new_factor)
        for unit, levels in (
            ("amount", levels_of(shifted(sums[young], AMOUNT, _AMOUNT_BITS))),
            ("events", levels_of(sums[young, EVENTS])),
        ):
            usual = self._customers.usual(unit, customers[young])
            large = (usual.hours == RING) & (levels > usual.median + steps) & (counts["told"][rows[young]] == 0)
            counts["told"][rows[young[large]]] = 1
            scale = 1 << _AMOUNT_BITS if unit == "amount" else UNIT
            rule = f"{unit} of a new model over {settings.new_factor} times the customer's usual hour"
            for n in np.flatnonzero(large):
                row, high = int(young[n]), int(usual.median[n]) + steps
                seen = whole(sums, row, AMOUNT) if unit == "amount" else int(sums[row, EVENTS]) * UNIT
                score = (int(levels[n]) - int(usual.median[n])) * 1000 // STEPS
                bound = number_of(high, scale)
                customer, model = names[row]
                found.append(
                    Found(Kind.NEW_LARGE, hour, unit, seen, 0, 0, bound, score, rule, customer=customer, model=model)
                )
        return found

    def _prices(self, hour: int, names: list[tuple[str]], models: Any, sums: Any) -> list[Found]:
        """Price per unit of each model, over all customers and meters."""
        settings = self._settings
        ids, of_models = added_up(models, sums)
        carried(of_models, QUANTITY)
        carried(of_models, AMOUNT)
        rows = self._models.rows(names[n] for n in ids)
        self._models.counts["last"][rows] = hour
        amounts = levels_of(shifted(of_models, AMOUNT, _AMOUNT_BITS)).astype(np.int64)
        levels = amounts - levels_of(shifted(of_models, QUANTITY, 0)) + _PRICE_ZERO
        judged = (of_models[:, EVENTS] >= settings.events_min) & (amounts != NONE)
        prices = between(self._models, "price", "out", rows, levels, steps_of(settings.price_factor), judged)
        rule = f"price per unit {settings.price_factor} times the usual one, or a part of it as small"
        found = []
        for n in np.flatnonzero(prices.told).tolist():
            seen = whole(of_models, n, AMOUNT) // max(whole(of_models, n, QUANTITY), 1)
            expected, low, high = (
                number_of(max(int(level[n]) - _PRICE_ZERO + _AMOUNT_BITS * STEPS, NONE))
                for level in (prices.usual.median, prices.low, prices.high)
            )
            score = abs(int(levels[n] - prices.usual.median[n])) * 1000 // STEPS
            model = names[ids[n]][0]
            found.append(
                Found(Kind.PRICE_PER_UNIT, hour, "amount/unit", seen, expected, low, high, score, rule, model=model)
            )
        return found

    # -- the snapshot

    def dump(self) -> dict[str, Any]:
        """Everything, for a manifest: what is usual as a compressed text that is made anew when an hour was closed."""
        if not self._kept or self.intake.closed:
            self.intake.closed = False
            series = {name: each.dump() for name, each in self._series().items()}
            self._kept = packed({**series, "intake": self.intake.dump_usual()})
        names = packed([list(names) for names in self._names])
        hours = {str(hour): tally.dump() for hour, tally in self._open.items()}
        open_ = {"names": names, "pers": list(self._pers), "hours": hours}
        intake = self.intake.dump_open()
        return {"begun": self.begun, "usual": self._kept, "open": open_, "intake": intake}

    def load(self, dumped: dict[str, Any]) -> None:
        """Goes on from a dump."""
        usual, open_ = unpacked(dumped["usual"]), dumped["open"]
        for name, each in self._series().items():
            each.load(usual[name])
        self.intake.load(usual["intake"], dumped["intake"])
        customers, models = ({name: n for n, name in enumerate(names)} for names in unpacked(open_["names"]))
        self._names, self._pers = (customers, models), {per: n for n, per in enumerate(open_["pers"])}
        self._open = {int(hour): Tally(WIDTH) for hour in open_["hours"]}
        for hour, tally in self._open.items():
            tally.load(open_["hours"][str(hour)])
        self.begun, self._kept = dumped["begun"], dumped["usual"]

    def _series(self) -> dict[str, Series]:
        return {"customers": self._customers, "pairs": self._pairs, "models": self._models, "stream": self._stream}


class _Seen:
    """One hour of many customers."""

    def __init__(self, hour: int, names: list[tuple[str, ...]], rows: Any, sums: Any) -> None:
        self.hour = hour
        self.names = names
        self.rows = rows
        self.sums = sums
        self.events = levels_of(sums[:, EVENTS])
        self.amounts = levels_of(shifted(sums, AMOUNT, _AMOUNT_BITS))


def _customers_of(keys: Any) -> Any:
    return keys >> (_MODEL_BITS + _PER_BITS)
