"""How far two sources are apart in what was used, by customer and in total, as exact fractions."""

from dataclasses import dataclass
from fractions import Fraction

from .sides import Quantities


@dataclass(frozen=True, slots=True)
class Variance:
    """One meter of a customer, of a model, or of all."""

    customer: str | None
    """None: all of them."""
    meter: str
    here: int
    there: int
    model: str | None = None
    """None: all of them."""

    @property
    def ratio(self) -> Fraction | None:
        """|here - there| / |there|; None where there is nothing there."""
        if self.here == self.there:
            return Fraction(0)
        return Fraction(abs(self.here - self.there), abs(self.there)) if self.there else None

    def beyond(self, threshold: Fraction) -> bool:
        """Whether it is more than that; anything is, of nothing."""
        return self.ratio is None or self.ratio > threshold


def variances(here: Quantities, there: Quantities) -> list[Variance]:
    """Where they differ: of all customers first, then by customer, the largest difference first."""
    totals: dict[str, list[int]] = {}
    for side, quantities in enumerate((here, there)):
        for (_, meter), quantity in quantities.items():
            totals.setdefault(meter, [0, 0])[side] += quantity
    keys = here.keys() | there.keys()
    of_customers = [Variance(*key, here.get(key, 0), there.get(key, 0)) for key in keys]
    differing = [one for one in of_customers if one.here != one.there]
    differing.sort(key=lambda one: (-abs(one.here - one.there), one.customer or "", one.meter))
    of_all = [Variance(None, meter, sides[0], sides[1]) for meter, sides in sorted(totals.items())]
    return of_all + differing


def percent(ratio: Fraction | None) -> str:
    """A ratio for people, rounded up to a millionth of a percent, so that nothing that differs is shown as 0."""
    if ratio is None:
        return "all"
    millionths = -(-ratio.numerator * 10**8 // ratio.denominator)
    whole, rest = divmod(millionths, 10**6)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".") + "%"
