"""A percentage of each event's amount of money, with a fee an event, free events, and bounds of an event's charge."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..errors import ConfigError, PlanError
from .lines import FEMTO, NOTHING, PERCENT, Line, line


@dataclass(frozen=True, slots=True)
class Percentage:
    """The charge of a paid event is percent x amount + fee, within the bounds. The first events may be free: as many
    as `free_events`, as long as their sum is below `free_amount`; where both are given, both hold.

    An event that reaches the free amount pays for what is above it, which may be nothing, and owes its fee. Amounts
    that add up to less than 0 are charged like none.
    """

    percent: Fraction
    fee_femto: Fraction = NOTHING
    free_events: int | None = None
    free_amount: Fraction | None = None
    """In currency units, as the meter counts."""
    min_femto: Fraction | None = None
    max_femto: Fraction | None = None
    fee_without_usage: bool = True
    """Whether paid events whose amounts add up to 0 owe their fee; with bounds they always do."""

    def __post_init__(self) -> None:
        amounts = (self.percent, self.fee_femto, self.free_amount or 0, self.min_femto or 0, self.free_events or 0)
        if any(amount < 0 for amount in amounts):
            raise ConfigError("no number of a percentage is below 0")
        if self.max_femto is not None and self.max_femto < (self.min_femto or 0):
            raise ConfigError("the most that an event costs is not below the least")

    @property
    def per_event(self) -> bool:
        """Whether the charge depends on the single events and not on their sum alone."""
        free = self.free_events is not None or self.free_amount is not None
        return bool(free or self.fee_femto or self.min_femto is not None or self.max_femto is not None)

    def lines(self, quantity: Fraction) -> list[Line]:
        """The lines of a sum of amounts. Raises PlanError where the events themselves are needed."""
        if self.per_event:
            raise PlanError("fees, free events and bounds need the amount of each event, not their sum")
        return self.lines_of_events([quantity])

    def lines_of_events(self, amounts: Sequence[Fraction]) -> list[Line]:
        """The lines of events in the order in which they came; amounts in currency units."""
        if sum(amounts) < 0:
            return []
        paid = list(self._paid(amounts))
        price_femto = self.percent * PERCENT * FEMTO
        bounded = self.min_femto is not None or self.max_femto is not None
        owes = bounded or self.fee_without_usage or sum(amounts) != 0
        fee_femto = self.fee_femto if owes else NOTHING
        found = [line("usage", 0, sum(paid, NOTHING), price_femto), line("fee", 0, Fraction(len(paid)), fee_femto)]
        if bounded:
            charges = [amount * price_femto + fee_femto for amount in paid]
            found.append(line("bounds", 0, Fraction(1), sum(map(self._within, charges), NOTHING) - sum(charges)))
        return [each for each in found if each.gross_femto or (each.kind == "usage" and each.quantity)]

    def _paid(self, amounts: Iterable[Fraction]) -> Iterator[Fraction]:
        """Of each event that is not free, the amount that is paid for."""
        events_left, amount_left = self.free_events, self.free_amount
        free = events_left is not None or amount_left is not None
        for amount in amounts:
            free = free and events_left != 0
            if free and (amount_left is None or amount < amount_left):
                amount_left = None if amount_left is None else amount_left - amount
                events_left = None if events_left is None else events_left - 1
                continue
            yield amount - (amount_left or NOTHING) if free else amount
            free = False

    def _within(self, charge_femto: Fraction) -> Fraction:
        if self.min_femto is not None and charge_femto < self.min_femto:
            return self.min_femto
        if self.max_femto is not None and charge_femto > self.max_femto:
            return self.max_femto
        return charge_femto
