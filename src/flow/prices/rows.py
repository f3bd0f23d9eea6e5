"""The rows of a price book: `prices:` and `adjustments:`, from YAML nodes to Price and Adjustment."""

from collections.abc import Mapping
from fractions import Fraction

import yaml

from ..schema import REQUESTS
from ..yaml_nodes import Problems, Steps, did_you_mean
from .price import NARROWING, PROMPT, Adjustment, Multiplier, Price, Schedule, Selector, Tier, rate_femto
from .rules import rule_of
from .values import INT128_MAX, Place, decimal_text, list_of, unit_problem

TERM_KEYS = (
    "meter",
    "per",
    "price",
    "per_started",
    "free",
    "credit",
    "above",
    "context",
    "applies",
    "times",
    "multiply",
)
"""What a price says of one meter; a term of a `formula` has only these."""
SHARED_KEYS = (*NARROWING, "from", "schedule")
PRICE_KEYS = ("meter", *NARROWING, "from", "per", "price", "schedule", *TERM_KEYS[3:], "formula", "withdrawn")
TIER_KEYS = ("above", "price", "per", "free")
MULTIPLIER_KEYS = ("by", "table", "otherwise")
ADJUSTMENT_KEYS = ("meter", *NARROWING, "from", "percent")

CELLS_MAX = 1024
"""Rates of one price: tiers times factors."""
CONTEXT_MAX, TIMES_MAX, TABLES_MAX = 32, 8, 4
"""Meters that may decide one price."""
QUANTITY_TOP = 10**18
"""No quantity, tier edge or package is above this; sums of some of them still fit 64 bits."""


class RowReader:
    """Reads rows; what is wrong with one is added to `problems`, and the row left out."""

    def __init__(self, problems: Problems, currency: str, quantity_max: int, schedules: Mapping[str, Schedule]) -> None:
        self.problems = problems
        self.currency = currency
        self.quantity_max = quantity_max
        self.schedules = schedules

    # -- prices

    def prices(self, node: yaml.Node, steps: Steps) -> list[Price]:
        """The prices of one entry of `prices:`; several where it is a formula."""
        place = Place(node, steps, self.problems, PRICE_KEYS)
        if not place.is_mapping:
            return []
        if "formula" not in place.found:
            price = self._price(place, place)
            return [price] if price is not None else []
        place.refuse("formula", *TERM_KEYS, "withdrawn", because="each of its terms says that")
        terms = list_of(place.found["formula"], (*steps, "formula"), self.problems)
        found = [
            self._price(place, Place(term, (*steps, "formula", n), self.problems, TERM_KEYS))
            for n, term in enumerate(terms)
        ]
        return [price for price in found if price is not None]

    def _price(self, shared: Place, own: Place) -> Price | None:
        """`shared` says for which events and from when on, `own` what it costs; mostly they are one."""
        if not own.is_mapping:
            return None
        withdrawn = own.true("withdrawn")
        own.refuse("withdrawn", *TERM_KEYS[1:], because="from then on there is no such price")
        own.require("meter")
        shared.require("from")
        if not withdrawn:
            if "per" not in own.found and "per_started" not in own.found:
                own.require("per")
            if "free" not in own.found:
                own.require("price")
        meter, from_us, selector = own.meter("meter"), shared.instant_us("from"), self._selector(shared)
        schedule = self._schedule(shared)
        if withdrawn:
            if meter is None or from_us is None:
                return None
            return Price(meter, selector, from_us, 1, "0", own.line, schedule=schedule, withdrawn=True)
        own.refuse("per_started", "per", because="it says for how many units the price is")
        per = own.count("per_started" if "per_started" in own.found else "per")
        price = self._money(own, per, started="per_started" in own.found)
        clauses = _Clauses(self, own, meter, per)
        if meter is None or from_us is None or per is None or price is None or clauses.wrong:
            return None
        found = Price(
            meter,
            selector,
            from_us,
            per,
            price,
            own.line,
            "per_started" in own.found,
            clauses.tiers,
            clauses.context,
            clauses.part,
            clauses.times,
            clauses.multipliers,
            schedule,
        )
        return found if self._fits(own, found) else None

    def _selector(self, place: Place) -> Selector:
        names = [place.text(name, f"is empty; leave {name} out to match any") for name in NARROWING]
        model, service_tier, region, customer = names
        return model, service_tier, region, customer

    def _schedule(self, place: Place) -> Schedule | None:
        name = place.text("schedule")
        if name is not None and name not in self.schedules:
            place.problem("schedule", f"is not in schedules; {did_you_mean(name, self.schedules or ['none'])}")
            return None
        return self.schedules[name] if name is not None else None

    def _money(self, place: Place, per: int | None, started: bool = False) -> str | None:
        """The price of a row or tier as text, once it is known to be meant and to be exact."""
        if place.true("free"):
            if "price" in place.found and Fraction(place.decimal("price") or 1) != 0:
                place.problem("price", "is not 0, and the price is said to be free")
                return None
            return "0"
        price = place.decimal("price")
        if price is None or per is None:
            return None
        credit = place.true("credit")
        if price.startswith("-") != credit:
            told = "is negative; what is paid back says credit: true" if not credit else 'is no credit; write "-0.10"'
            place.problem("price", told)
            return None
        of = 1 if started else per
        if rate_femto(price, of) == 0:
            place.problem("price", "is 0; if that is meant, say so: free: true")
            return None
        return price if self._on_grid(place, price, of) else None

    def _on_grid(self, place: Place, price: str, per: int) -> bool:
        """Whether the rate is exact: on the grid of 10^-15, or a fraction without a finite decimal, which is kept."""
        rate = rate_femto(price, per)
        below = rate.numerator // rate.denominator
        if rate.denominator == 1:
            return True
        nearest = f'the nearest that are: "{decimal_text(below, per)}" and "{decimal_text(below + 1, per)}"'
        problem = f"not a whole number of 10^-15 {self.currency} per unit"
        if not is_finite(rate):
            wrong = unit_problem(rate)
            if wrong is None:
                return True
            problem = f"{problem}, and {wrong}"
        place.problem("price", f"per {per} is {problem}; {nearest}")
        return False

    def _fits(self, place: Place, price: Price) -> bool:
        """Whether the amount of the largest quantity fits 128 bits in every case, and every rate can be kept."""
        rule = rule_of(price)
        wrong = [problem for cell in rule.cells if (problem := unit_problem(cell))]
        if wrong:
            place.problem("multiply", f"gives a rate that cannot be kept: {wrong[0]}")
            return False
        per = rule.per
        if price.meter == REQUESTS and per != 1:
            place.problem("price", f"of requests must be a whole number of 10^-15 {self.currency}")
            return False
        largest = max(abs(cell) for cell in rule.cells) * per
        if largest * self.quantity_max > INT128_MAX:
            of = 1 if price.started else price.per
            limit = decimal_text(INT128_MAX // self.quantity_max // per, of)
            told = f'per {of}, times limits.quantity_max, does not fit in 128 bits; at most "{limit}"'
            place.problem("price", told)
            return False
        return True

    # -- adjustments

    def adjustment(self, node: yaml.Node, steps: Steps) -> Adjustment | None:
        """One entry of `adjustments:`."""
        place = Place(node, steps, self.problems, ADJUSTMENT_KEYS)
        place.require("from", "percent")
        meter, selector, from_us = place.meter("meter"), self._selector(place), place.instant_us("from")
        percent = place.decimal("percent", '"-12.5"', "percentage")
        if percent is None or from_us is None:
            return None
        if Fraction(percent) <= -100:
            place.problem("percent", "leaves nothing of a price; write prices with free: true")
            return None
        found = Adjustment(meter, selector, from_us, percent, place.line)
        if not found.names - {"meter"}:
            place.problem("percent", "is for every event; name a customer, model, service_tier or region")
            return None
        return found


class _Clauses:
    """What a price may say besides a price for `per` units."""

    def __init__(self, reader: RowReader, place: Place, meter: str | None, per: int | None) -> None:
        self.place = place
        before = len(reader.problems)
        self.tiers = self._tiers(reader, per)
        self.part = self._part()
        context = place.meters("context")
        self.context = (context if context is not None else self._usual_context(meter)) if self.tiers else ()
        self.times = place.meters("times") or ()
        self.multipliers = self._multipliers()
        if not self.tiers:
            for key in ("context", "applies"):
                if key in place.found:
                    place.problem(key, "says something of tiers, and there is no `above`")
        if self.tiers and not self.context:
            place.problem("context", "is empty; name the meters whose quantities decide the tier")
        if self.part and meter is not None and meter not in self.context:
            place.problem("applies", f"needs {meter} in context: its units are what stands above a tier's edge")
        if self.part and (self.times or "per_started" in place.found):
            place.problem("applies", "tells units apart, which packages and products have not")
        if meter is not None and meter in self.times:
            place.problem("times", f"holds {meter} itself")
        self._check_factors()
        self.wrong = len(reader.problems) > before

    def _check_factors(self) -> None:
        for key, names, most in (
            ("context", self.context, CONTEXT_MAX),
            ("times", self.times, TIMES_MAX),
            ("multiply", tuple(multiplier.meter for multiplier in self.multipliers), TABLES_MAX),
        ):
            if REQUESTS in names:
                self.place.problem(key, f"names {REQUESTS}, which is 1 in every event")
            if len(names) > most:
                self.place.problem(key, f"names more than {most} meters")
        cells = len(self.tiers) + 1
        for multiplier in self.multipliers:
            cells *= len(multiplier.table) + (multiplier.otherwise is not None)
        if cells > CELLS_MAX:
            self.place.problem("multiply", f"makes {cells} rates of one price; at most {CELLS_MAX}")

    def _usual_context(self, meter: str | None) -> tuple[str, ...]:
        if self.part and meter is not None and meter not in PROMPT:
            return (meter,)
        return PROMPT

    def _part(self) -> bool:
        node = self.place.found.get("applies")
        if node is not None and getattr(node, "value", None) not in ("whole", "part"):
            self.place.problem("applies", "is neither whole nor part")
        return node is not None and node.value == "part"

    def _tiers(self, reader: RowReader, per: int | None) -> tuple[Tier, ...]:
        """Entries of `above:`, whose edges must rise."""
        steps = (*self.place.steps, "above")
        found: list[Tier] = []
        started = "per_started" in self.place.found
        for n, node in enumerate(list_of(self.place.found.get("above"), steps, self.place.problems)):
            tier = Place(node, (*steps, n), self.place.problems, TIER_KEYS)
            tier.require("above", *([] if "free" in tier.found else ["price"]))
            edge = tier.count("above")
            of = tier.count("per") if "per" in tier.found else per
            if started and "per" in tier.found:
                tier.problem("per", "is the package that the price says")
            price = reader._money(tier, of, started)
            if edge is None or of is None or price is None:
                continue
            if edge > QUANTITY_TOP:
                tier.problem("above", "is more than any event has")
            if found and edge <= found[-1].above:
                tier.problem("above", f"is not above the tier before it, {found[-1].above}")
            found.append(Tier(edge, price, of))
        return tuple(found)

    def _multipliers(self) -> tuple[Multiplier, ...]:
        steps = (*self.place.steps, "multiply")
        nodes = list_of(self.place.found.get("multiply"), steps, self.place.problems)
        found = [self._multiplier(node, (*steps, n)) for n, node in enumerate(nodes)]
        return tuple(multiplier for multiplier in found if multiplier is not None)

    def _multiplier(self, node: yaml.Node, steps: Steps) -> Multiplier | None:
        place = Place(node, steps, self.place.problems, MULTIPLIER_KEYS)
        place.require("by", "table")
        meter, otherwise = place.meter("by"), self._factor(place, "otherwise")
        table = place.found.get("table")
        if not isinstance(table, yaml.MappingNode):
            if table is not None:
                place.problem("table", 'is no table; write {1: "1", 2: "1.5"}: quantity and factor')
            return None
        factors = {}
        of_table = Place(table, (*steps, "table"), place.problems, [key.value for key, _ in table.value])
        for key in of_table.found:
            factor = self._factor(of_table, key)
            if not key.isascii() or not key.isdigit() or int(key) > QUANTITY_TOP:
                of_table.problem(key, "stands at what is no quantity; write a whole number")
            elif factor is not None:
                factors[int(key)] = factor
        if meter is None or not factors:
            return None
        return Multiplier(meter, tuple(sorted(factors.items())), otherwise)

    def _factor(self, place: Place, key: str) -> str | None:
        factor = place.decimal(key, '"1.5"', "factor")
        if factor is not None and Fraction(factor) <= 0:
            place.problem(key, "is not above 0")
            return None
        return factor


def is_finite(rate: Fraction) -> bool:
    """Whether a number has a finite decimal."""
    rest = rate.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
