"""Finds what is out of line in the usage of one writer, hour by hour of event time.

An hour of usage is closed when the watermark is `grace` behind its end; an hour of arrivals (what reached the writer
while its watermark was in that hour, duplicates and rejected ones as well) when the watermark leaves it. Neither
depends on where blocks are cut. Each writer sees its share of all events, chosen by fingerprint, and compares it with
the same share of other hours: ratios are what they would be for the whole. docs/decisions/016-anomalies.md
"""

from functools import cached_property
from typing import Any

import numpy as np

from ..config import Anomalies
from .found import SPIKE_RULE, UNIT, Found, Kind, leveled, shared, silence
from .hours import AMOUNT, EVENTS, PAIRS_PER_CUSTOMER, QUANTITY, UNPRICED, OpenHours, customers_of, models_of, pair_of
from .intake import Intake
from .levels import NONE, STEPS, levels_of, number_of, steps_of
from .names import Names, hashes_of_pairs, packed, unpacked
from .rules import above, between, gone, share
from .series import RING, Series
from .tally import added_up, carried, shifted, whole

HOUR_US = 3_600_000_000
_AMOUNT_BITS = 20  # levels of amounts are of 2^20 femto-units, about a nano-unit
_PRICE_ZERO = 1000  # the level of a price may be negative, that of a ring not
_NAMES_PER_CUSTOMER = 4
"""Names that nobody needs any more are forgotten when there are so many times those that are watched."""


class Detector:
    """The state of one writer: what is usual, and the hours that are open."""

    def __init__(self, settings: Anomalies) -> None:
        self._settings = settings
        most = settings.tracked_max
        self._customers = Series(
            ("events", "amount"),
            (
                "streak",
                "quiet",
                "out",
                "amount_out",
                "events_peak",
                "amount_peak",
                "unpriced",
                "judged",
                "unpriced_out",
                "hours",
            ),
            most,
        )
        self._pairs = Series((), ("first", "told"), most * PAIRS_PER_CUSTOMER)
        self._models = Series(("price",), ("out",), most)
        self._stream = Series(("events",), (), 1)
        self._names = (Names(), Names())  # of customers and models
        self.hours = OpenHours(settings, *self._names)
        self.intake = Intake(settings)
        self._kept = ""
        self._kept_names = (0, 0)

    # -- usage of event-time hours

    def open_from(self, watermark_us: Any) -> Any:
        """The first hour that is open at a watermark, or at each of many."""
        return (watermark_us - self._settings.grace_us) // HOUR_US

    def close(self, watermark_us: int) -> list[Found]:
        """Closes the hours that the watermark has passed. What was found since the last time, oldest first."""
        found = self.intake.take()
        passed = self.hours.close(self.open_from(watermark_us))
        for hour, pairs, sums in passed:
            found += self._close(_Seen(hour, pairs, sums, *self._names))
        if passed:
            self._kept = ""
            if len(self._names[0]) > _NAMES_PER_CUSTOMER * self._settings.tracked_max:
                self._forget_names()
        return sorted(found, key=lambda row: (row.hour, row.id))

    def _close(self, seen: "_Seen") -> list[Found]:
        hour, series = seen.hour, self._customers
        seen.rows = series.rows(seen.customers)
        series.counts["last"][seen.rows] = hour
        series.counts["hours"][seen.rows] += 1
        found = self._prices(seen)
        found += self._new_large(seen)
        if self._is_alive(hour, int(seen.sums[:, EVENTS].sum())):
            found += self._silences(hour, seen.rows)
        found += self._spikes(seen)
        found += self._unpriced(seen)
        customers, models = self._names
        series.forget(hour, lambda keys: customers.hashes()[keys])
        self._models.forget(hour, lambda keys: models.hashes()[keys])
        self._pairs.forget(
            hour, lambda keys: hashes_of_pairs(customers.hashes()[customers_of(keys)], models.hashes()[models_of(keys)])
        )
        return found

    def _forget_names(self) -> None:
        """Numbers names anew, without those that nothing is known of."""
        used = self.hours.numbers()
        pairs, models = self._pairs, self._models
        of_customers = self._names[0].keep((self._customers.keys, customers_of(pairs.keys), used[0]))
        of_models = self._names[1].keep((models.keys, models_of(pairs.keys), used[1]))
        self._customers.keys, models.keys = of_customers[self._customers.keys], of_models[models.keys]
        pairs.keys = pair_of(of_customers[customers_of(pairs.keys)], of_models[models_of(pairs.keys)])
        self.hours.renumber(of_customers, of_models)

    # -- the rules

    def _is_alive(self, hour: int, events: int) -> bool:
        """Whether there is at least a quarter of the usual stream: if all are silent, it is no customer's silence."""
        row = self._stream.rows(np.zeros(1, np.int64))
        self._stream.counts["last"][row] = hour
        level = levels_of(np.array([events]))
        alive = level > self._stream.usual("events", row).median - 2 * STEPS
        self._stream.push("events", row, level)
        return bool(alive[0])

    def _silences(self, hour: int, rows: Any) -> list[Found]:
        settings = self._settings
        least = steps_of(settings.events_min)
        gone_rows, usual = gone(self._customers, "events", rows, settings.silence_hours, least)
        names = self._names[0].texts() if len(gone_rows) else []
        first = hour - settings.silence_hours + 1
        hours = settings.silence_hours
        keys = self._customers.keys[gone_rows].tolist()
        return [silence(first, hours, usual, n, customer=names[key]) for n, key in enumerate(keys)]

    def _spikes(self, seen: "_Seen") -> list[Found]:
        settings, series = self._settings, self._customers
        steps, peak = steps_of(settings.spike_factor), steps_of(settings.peak_factor)
        judged = seen.sums[:, EVENTS] >= settings.events_min
        begins = (series.counts["out"][seen.rows] == 0) & (series.counts["amount_out"][seen.rows] == 0)
        by_events = above(series, "events", "out", seen.rows, seen.events, steps, peak, judged)
        by_amount = above(series, "amount", "amount_out", seen.rows, seen.amounts, steps, peak, judged)
        found = []
        for n in np.flatnonzero((by_events.told | by_amount.told) & begins).tolist():
            higher = by_amount.told[n] and (
                not by_events.told[n]
                or seen.amounts[n] - by_amount.usual.median[n] >= seen.events[n] - by_events.usual.median[n]
            )
            which, levels, unit = (by_amount, seen.amounts, "amount") if higher else (by_events, seen.events, "events")
            number = whole(seen.sums, n, AMOUNT) if higher else int(seen.sums[n, EVENTS]) * UNIT
            scale = 1 << _AMOUNT_BITS if higher else UNIT
            rule = SPIKE_RULE.format(unit, settings.spike_factor, settings.peak_factor)
            who = {"customer": seen.customer(n)}
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
                Kind.UNPRICED_RATE, seen.hour, shares, n, int(parts[n]), int(wholes[n]), rule, customer=seen.customer(n)
            )
            for n in np.flatnonzero(shares.told).tolist()
        ]

    def _new_large(self, seen: "_Seen") -> list[Found]:
        """Models that a customer has not used before this day, and that are large against all that it used."""
        settings, hour, sums = self._settings, seen.hour, seen.of_pairs
        rows = self._pairs.rows(seen.pairs)
        counts = self._pairs.counts
        counts["last"][rows] = hour
        counts["first"][rows] = np.where(counts["first"][rows] == 0, hour, counts["first"][rows])
        young = np.flatnonzero((counts["told"][rows] == 0) & (counts["first"][rows] > hour - RING))
        young = young[sums[young, EVENTS] >= settings.events_min]
        customers = seen.rows[np.searchsorted(seen.customers, customers_of(seen.pairs[young]))]
        found, steps = [], steps_of(settings.new_factor)
        for unit, levels in (
            ("amount", levels_of(shifted(sums[young], AMOUNT, _AMOUNT_BITS))),
            ("events", levels_of(sums[young, EVENTS])),
        ):
            usual = self._customers.usual(unit, customers)
            large = (usual.hours == RING) & (levels > usual.median + steps) & (counts["told"][rows[young]] == 0)
            counts["told"][rows[young[large]]] = 1
            scale = 1 << _AMOUNT_BITS if unit == "amount" else UNIT
            rule = f"{unit} of a new model over {settings.new_factor} times the customer's usual hour"
            for n in np.flatnonzero(large):
                row, high = int(young[n]), int(usual.median[n]) + steps
                number = whole(sums, row, AMOUNT) if unit == "amount" else int(sums[row, EVENTS]) * UNIT
                score = (int(levels[n]) - int(usual.median[n])) * 1000 // STEPS
                bound = number_of(high, scale)
                found.append(Found(Kind.NEW_LARGE, hour, unit, number, 0, 0, bound, score, rule, **seen.pair(row)))
        return found

    def _prices(self, seen: "_Seen") -> list[Found]:
        """Price per unit of each model, over all customers and meters."""
        settings, hour = self._settings, seen.hour
        models, of_models = added_up(models_of(seen.pairs), seen.of_pairs)
        carried(of_models, QUANTITY)
        carried(of_models, AMOUNT)
        rows = self._models.rows(models)
        self._models.counts["last"][rows] = hour
        amounts = levels_of(shifted(of_models, AMOUNT, _AMOUNT_BITS)).astype(np.int64)
        levels = amounts - levels_of(shifted(of_models, QUANTITY, 0)) + _PRICE_ZERO
        judged = (of_models[:, EVENTS] >= settings.events_min) & (amounts != NONE)
        prices = between(self._models, "price", "out", rows, levels, steps_of(settings.price_factor), judged)
        rule = f"price per unit {settings.price_factor} times the usual one, or a part of it as small"
        found = []
        for n in np.flatnonzero(prices.told).tolist():
            price = whole(of_models, n, AMOUNT) // max(whole(of_models, n, QUANTITY), 1)
            expected, low, high = (
                number_of(max(int(level[n]) - _PRICE_ZERO + _AMOUNT_BITS * STEPS, NONE))
                for level in (prices.usual.median, prices.low, prices.high)
            )
            score = abs(int(levels[n] - prices.usual.median[n])) * 1000 // STEPS
            model = seen.model(int(models[n]))
            found.append(
                Found(Kind.PRICE_PER_UNIT, hour, "amount/unit", price, expected, low, high, score, rule, model=model)
            )
        return found

    # -- the snapshot

    def dump(self) -> dict[str, Any]:
        """Everything, for a manifest: what is usual as a compressed text that is made anew when an hour was closed."""
        if not self._kept or self.intake.closed:
            self.intake.closed = False
            series = {name: each.dump() for name, each in self._series().items()}
            names = [each.texts() for each in self._names]
            self._kept_names = (len(names[0]), len(names[1]))
            self._kept = packed({**series, "names": names, "intake": self.intake.dump_usual()})
        new = [each.texts()[kept:] for each, kept in zip(self._names, self._kept_names, strict=True)]
        return {
            "usual": self._kept,
            "names": packed(new),
            "open": self.hours.dump(),
            "intake": self.intake.dump_open(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Goes on from a dump."""
        usual = unpacked(dumped["usual"])
        for name, each in self._series().items():
            each.load(usual[name])
        self._kept, self._kept_names = dumped["usual"], (len(usual["names"][0]), len(usual["names"][1]))
        for names, kept, new in zip(self._names, usual["names"], unpacked(dumped["names"]), strict=True):
            names.load([*kept, *new])
        self.intake.load(usual["intake"], dumped["intake"])
        self.hours.load(dumped["open"])

    def _series(self) -> dict[str, Series]:
        return {"customers": self._customers, "pairs": self._pairs, "models": self._models, "stream": self._stream}


class _Seen:
    """One hour: usage of pairs of customer and model, and of customers."""

    def __init__(self, hour: int, pairs: Any, of_pairs: Any, customers: Names, models: Names) -> None:
        self.hour = hour
        self.pairs = pairs
        self.of_pairs = of_pairs
        self.customers, self.sums = added_up(customers_of(pairs), of_pairs)
        carried(self.sums, QUANTITY)
        carried(self.sums, AMOUNT)
        self.events = levels_of(self.sums[:, EVENTS])
        self.amounts = levels_of(shifted(self.sums, AMOUNT, _AMOUNT_BITS))
        self.rows: Any = None
        """Of the customers, in their series."""
        self._names = (customers, models)

    @cached_property
    def _texts(self) -> tuple[list[str], list[str]]:
        return self._names[0].texts(), self._names[1].texts()

    def customer(self, n: int) -> str:
        """The name of customer n of the hour."""
        return self._texts[0][int(self.customers[n])]

    def model(self, number: int) -> str:
        """The name of a model, by its number."""
        return self._texts[1][number]

    def pair(self, n: int) -> dict[str, str]:
        """Who pair n is."""
        pair = int(self.pairs[n])
        return {"customer": self._texts[0][customers_of(pair)], "model": self._texts[1][models_of(pair)]}
