"""What is asked of a re-rating."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..state.rerates import Rerate

WINDOW_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Scope:
    """Events with times in [from_us, before_us), whole windows of a minute; of one customer, or of all."""

    from_us: int
    before_us: int
    customer: str | None = None

    def check(self) -> None:
        """Raises ConfigError."""
        problems = [
            f"{option}: must be a whole minute: the store has no smaller windows"
            for option, time_us in (("--from", self.from_us), ("--to", self.before_us))
            if time_us % WINDOW_US
        ]
        if self.from_us >= self.before_us:
            problems.append("--to: must be later than --from")
        if problems:
            raise ConfigError(problems)


def last_covering(rerates: Sequence[Rerate], scope: Scope) -> Rerate | None:
    """The last re-rating of all that is in a scope, if no later one has touched a part of it."""
    for rerate in reversed(rerates):
        if not rerate.times(scope.from_us, scope.before_us):
            continue
        if rerate.customer is not None and scope.customer not in (None, rerate.customer):
            continue
        whole = rerate.from_us <= scope.from_us and scope.before_us <= rerate.before_us
        return rerate if whole and rerate.customer in (None, scope.customer) else None
    return None
