"""What a rule book would have made of the events of a ledger, before it goes live. Nothing is written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from .errors import SourceError
from .prices.book import PriceBook
from .rules.book import RuleBook
from .rules.checker import NO_CLOCK_US, Checker
from .rules.rule import REJECT
from .schema import meter_and_per
from .sources.ledger import as_events
from .state.ledger import ledger_files, unsealed_files
from .state.ledger_file import LedgerFile
from .steps.amend import kinds_in
from .steps.rate import Rater

BATCH_ROWS = 1 << 16


@dataclass(slots=True)
class Tally:
    """Some events, and what was billed for them."""

    events: int = 0
    amount_femto: Fraction = Fraction(0)

    def add(self, amount_femto: Fraction) -> None:
        self.events += 1
        self.amount_femto += amount_femto


@dataclass(slots=True)
class OfRule:
    """The events that fail one rule."""

    severity: str
    total: Tally = field(default_factory=Tally)
    customers: dict[str, Tally] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """What one rule book makes of the ledger."""

    rejected: Tally = field(default_factory=Tally)
    flagged: Tally = field(default_factory=Tally)
    """Events that are not rejected."""
    rules: dict[str, OfRule] = field(default_factory=dict)
    """By id, in the order of the book."""


@dataclass(slots=True)
class Trial:
    """The plain events of a ledger: corrections, and late events that were billed later, are not held to rules."""

    verdicts: list[Verdict]
    """One for each book."""
    events: int = 0
    unsealed_files: int = 0
    """Files of the ledger that a run still writes: their events are not in here."""


def try_rules(
    folder: Path,
    books: Sequence[RuleBook],
    prices: PriceBook | None,
    on_events: Callable[[int], None] = lambda events: None,
) -> Trial:
    """Holds every event of a ledger to each of the books; clocks say nothing of them.

    prices: what amounts are by; None: all are 0. `on_events` is told of each batch how many it had.
    Raises SourceError, OverflowStop, ConfigError.
    """
    checkers = [Checker(book.rules) for book in books]
    found = Trial([Verdict(rules={rule.id: OfRule(rule.severity) for rule in book.rules}) for book in books])
    found.unsealed_files = len(unsealed_files(folder))
    rater = Rater(prices) if prices is not None else None
    files = ledger_files(folder)
    if not files:
        raise SourceError(f"{folder}: no ledger files there; name the folder that `ledger:` of a config names")
    for events in _events(files):
        for checker, verdict in zip(checkers, found.verdicts, strict=True):
            _hold(events, checker, rater, verdict)
        found.events += events.num_rows
        on_events(events.num_rows)
    return found


def _events(files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """EVENTS, the plain ones."""
    for path in files:
        try:
            with LedgerFile(path) as file:
                for batch in file.batches(BATCH_ROWS):
                    for kind, rows in kinds_in(batch):
                        if not kind:
                            yield as_events(batch if rows.all() else batch.filter(pa.array(rows)), 0)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def _hold(events: pa.RecordBatch, checker: Checker, rater: Rater | None, verdict: Verdict) -> None:
    failures = checker.failures(events, NO_CLOCK_US)
    if not failures:
        return
    failing = events.take(pa.array(list(failures), pa.uint32()))
    costs = [Fraction(0)] * len(failures) if rater is None else list(_costs(failing, rater))
    customers = failing.column("customer").to_pylist()
    for numbers, customer, cost in zip(failures.values(), customers, costs, strict=True):
        rules = [checker.rules[n] for n in numbers]
        rejected = any(rule.severity == REJECT for rule in rules)
        (verdict.rejected if rejected else verdict.flagged).add(cost)
        for rule in rules:
            of_rule = verdict.rules[rule.id]
            of_rule.total.add(cost)
            of_rule.customers.setdefault(customer, Tally()).add(cost)


def _costs(events: pa.RecordBatch, rater: Rater) -> Iterator[Fraction]:
    """What each event costs; what has no price costs nothing."""
    amounts, named = rater.amounts(events, None, events.num_rows)
    usage = named.column("usage")
    pers = [meter_and_per(name)[1] for name in usage.values.field("meter").to_pylist()]
    of_items, of_rows = (_integers(buffer) for buffer in (amounts.amounts, amounts.requests))
    offsets = usage.offsets.to_pylist()
    for row, (first, end) in enumerate(pairwise(offsets)):
        of_row = (Fraction(of_items[item], pers[item]) for item in range(first, end))
        yield sum(of_row, Fraction(of_rows[row]))


def _integers(amounts: pa.Buffer) -> list[int]:
    content = bytes(amounts)
    return [int.from_bytes(content[at : at + 16], "little", signed=True) for at in range(0, len(content), 16)]
