"""The store against a provider's usage report: sums by bucket, model and, where the report tells them, customer.

A report has no events that could be hashed, so there are no digests here: quantities are compared, in the meters that
it tells apart. Finer meters of ours are added to those that they are a part of (`adapters/classes.py`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from fractions import Fraction

from ..adapters.classes import fold
from ..errors import ConfigError
from ..schema import REQUESTS
from ..store.queries.buckets import corrected_quantities, usage_by_model
from .asked import Scope
from .descend import Level
from .from_store import StoreSide
from .provider import GRAIN_S, UsageReport
from .report import Reconciliation, UsageDifference, iso
from .sides import Quantities
from .variance import variances

Cell = tuple[int, str, str, str]
"""The start of a bucket in seconds, the customer, the model, and the meter; empty where they are not told apart."""

_UNITS = {1_000: "thousands of tokens", 1_000_000: "millions of tokens"}
_LIKE_A_UNIT = Fraction(1, 20)
"""So near to a thousandth or a millionth of ours, the total of a report is taken to be in that unit."""
_UNIT_FROM = 100_000
"""Below that many tokens such a ratio may be chance."""


def against_provider(
    here: StoreSide, report: UsageReport, scope: Scope, threshold: Fraction, models: Sequence[str]
) -> Reconciliation:
    """Compares the buckets that are within the scope.

    `models`: globs of the models here that the provider could know of; none: all. Raises ConfigError, StoreError.
    """
    scope = _held_to(report, scope)
    told = report.told()
    with here.open() as client:
        rows = usage_by_model(client, report.grain, scope.from_s, scope.before_s, scope.customers)
        corrected = corrected_quantities(client, scope.from_s, scope.before_s)
    found = Reconciliation(here.label, report.label, "report", scope, threshold)
    ours, left_out = _ours(report, rows, told, models)
    theirs = _theirs(report, scope)
    _refuse_other_unit(report, ours, theirs)
    cells = ours.keys() | theirs.keys()
    differing = sorted(cell for cell in cells if ours[cell] != theirs[cell])
    found.usage = [
        UsageDifference(iso(start_s), report.grain, customer, model, meter, ours[cell], theirs[cell])
        for cell in differing
        for start_s, customer, model, meter in [cell]
    ]
    buckets = {cell[:3] for cell in cells}
    found.levels = [Level(report.grain, len(buckets), len({cell[:3] for cell in differing}))]
    found.events_here, found.events_there = (
        sum(count for cell, count in side.items() if cell[3] == REQUESTS) for side in (ours, theirs)
    )
    if differing:
        of_customers = variances(_by(1, ours), _by(1, theirs))
        found.variances = [one for one in of_customers if report.tells_customers or one.customer is None]
    found.notes = [*report.notes, *_notes(found, report, told, left_out, corrected), *_unmatched(ours, theirs)]
    if differing and report.tells_models:
        of_models = [one for one in variances(_by(2, ours), _by(2, theirs)) if one.customer is not None]
        found.variances += [replace(one, customer=None, model=one.customer) for one in of_models]
    return found


def _held_to(report: UsageReport, scope: Scope) -> Scope:
    """The part of the scope that the report covers. Raises ConfigError."""
    if scope.customers is not None and not report.tells_customers:
        raise ConfigError(f"{report.label}: does not tell customers apart, so that it cannot be compared for one only")
    length_s = GRAIN_S[report.grain]
    # Only buckets that are wholly within the scope.
    from_s, before_s = -(-scope.from_s // length_s) * length_s, scope.before_s // length_s * length_s
    held = replace(scope, from_s=max(from_s, report.from_s), before_s=min(before_s, report.before_s))
    if held.from_s >= held.before_s:
        covered = f"{iso(report.from_s)} to {iso(report.before_s)}"
        raise ConfigError(f"{report.label}: has buckets from {covered}; expected some of the period that was asked for")
    return held


def _ours(
    report: UsageReport, rows: Sequence[tuple[int, str, str, str, int]], told: frozenset[str], models: Sequence[str]
) -> tuple[Counter[Cell], Counter[str]]:
    """Our usage in the meters that are told, and what else there is, by meter."""
    sums: dict[tuple[int, str, str], Counter[str]] = {}
    for start_s, customer, model, meter, quantity in rows:
        if models and not any(fnmatchcase(model, glob) for glob in models):
            continue
        cell = start_s, customer if report.tells_customers else "", model if report.tells_models else ""
        sums.setdefault(cell, Counter())[meter] += quantity
    ours: Counter[Cell] = Counter()
    left_out: Counter[str] = Counter()
    for cell, meters in sums.items():
        for meter, quantity in fold(meters, told).items():
            if meter in told:
                ours[(*cell, meter)] += quantity
            elif meter != REQUESTS:
                left_out[meter] += quantity
    return ours, left_out


def _theirs(report: UsageReport, scope: Scope) -> Counter[Cell]:
    theirs: Counter[Cell] = Counter()
    for row in report.rows:
        if scope.from_s <= row.start_s < scope.before_s and scope.customers in (None, (row.customer,)):
            for meter, quantity in row.meters().items():
                theirs[row.start_s, row.customer, row.model, meter] += quantity
    return theirs


def _refuse_other_unit(report: UsageReport, ours: Counter[Cell], theirs: Counter[Cell]) -> None:
    """Raises ConfigError where the totals are a thousand or a million apart."""
    totals = [sum(count for cell, count in side.items() if cell[3].endswith("tokens")) for side in (ours, theirs)]
    small, large = sorted(totals)
    for factor, unit in _UNITS.items():
        if large >= _UNIT_FROM and small and abs(small * factor - large) <= _LIKE_A_UNIT * large:
            whose = "the report" if totals[1] == small else "the store"
            raise ConfigError(
                f"{report.label}: found {totals[1]:,} where the store has {totals[0]:,}, as if {whose} were in {unit}; "
                "expected tokens, one each: nothing was compared"
            )


def _by(place: int, cells: Counter[Cell]) -> Quantities:
    """Sums by what stands at this place of a cell, the customer or the model, and by meter."""
    sums: Quantities = {}
    for cell, quantity in cells.items():
        key = str(cell[place]), cell[3]
        sums[key] = sums.get(key, 0) + quantity
    return sums


def _notes(
    found: Reconciliation, report: UsageReport, told: frozenset[str], left_out: Counter[str], corrected: dict[str, int]
) -> list[str]:
    scope = found.scope
    notes = [
        f"compared: buckets of a {report.grain} from {iso(scope.from_s)} to before {iso(scope.before_s)}, in "
        f"{', '.join(sorted(told))}"
    ]
    if left_out:
        notes.append(f"not compared, since the report has no count of it: {_listed(left_out)}")
    if corrected:
        notes.append(f"corrections are within what is here: {_listed(corrected)}")
    if found.usage and not found.beyond and (found.scope.before_s - found.scope.from_s) > GRAIN_S[report.grain]:
        notes.append(
            "buckets differ, and what they come to does not: are the report's buckets those of another zone, or "
            "does it count a request when it ends?"
        )
    return notes


def _listed(quantities: Counter[str] | dict[str, int]) -> str:
    return ", ".join(f"{quantity:,} {meter}" for meter, quantity in sorted(quantities.items()))


def _unmatched(ours: Counter[Cell], theirs: Counter[Cell]) -> list[str]:
    """Models that one side only knows: mostly the same ones, under two names."""
    models = [{cell[2] for cell, count in side.items() if count} for side in (ours, theirs)]
    notes = []
    for where, names in (("here", models[0] - models[1]), ("there", models[1] - models[0])):
        if names:
            notes.append(
                f"models only {where}: {', '.join(sorted(names)[:20])}; `models` of a mapping gives them one name"
            )
    return notes
