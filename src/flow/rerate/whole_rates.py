"""Rating for the rollups, which count amounts in whole 10^-15 currency units."""

import pyarrow as pa

from ..errors import RefusedStart
from ..steps.correct import Cost, cost_of
from ..steps.rate import Rater


def amounts_of(rater: Rater, events: pa.RecordBatch) -> Cost:
    """What all of EVENTS cost.

    Raises RefusedStart for a rate that corrections cannot hold, OverflowStop, ConfigError.
    """
    amounts, named = rater.amounts(events, None, events.num_rows)
    if named is not events:
        raise RefusedStart(
            "rerate: a rate that is no whole number of 10^-15 is in force, whose parts corrections cannot hold yet "
            "(docs/decisions/012-fractional-rates.md); give a price that is one, or replay the ledger into a new store"
        )
    return cost_of(events, amounts)
