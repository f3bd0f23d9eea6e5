"""What a reconciliation asks of the store: events and digests by window, and quantities.

An event has one row of storage whose first slot is `requests`, and others if it has more meters than fit: only the
first kind is counted here. Re-ratings are rows without events and with digest 0, so that they are in no bucket. A
correction is no event and has a digest; what it has added to quantities is taken away again.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ...schema import REQUESTS
from ..client import StoreClient
from ..tables import SLOTS

_STARTS = {
    "month": "toUnixTimestamp(toDateTime(toStartOfMonth(window_start), 'UTC'))",
    "day": "toUnixTimestamp(toStartOfDay(window_start))",
    "hour": "toUnixTimestamp(toStartOfHour(window_start))",
    "minute": "toUnixTimestamp(window_start)",
}
_WITHIN = (
    "window_start >= toDateTime({from_s:UInt32}, 'UTC') AND window_start < toDateTime({before_s:UInt32}, 'UTC') "
    "AND (has({customers:Array(String)}, customer) OR {everyone:UInt8})"
)
_FIRST_SLOT = f"splitByChar('/', splitByChar(',', meters)[1])[1] = '{REQUESTS}'"
_SUMS = ", ".join(f"sum(toInt256(q{slot})) AS q{slot}" for slot in range(SLOTS))
_SLOTS = ", ".join(f"q{slot}" for slot in range(SLOTS))


def _parameters(from_s: int, before_s: int, customers: Sequence[str] | None) -> dict[str, Any]:
    return {
        "from_s": from_s,
        "before_s": before_s,
        "customers": list(customers or ()),
        "everyone": int(customers is None),
    }


SUM_WORDS = ("digest_low", "digest_high", "moment_low", "moment_high")
"""The columns of `usage_buckets` with the digest, and with the sum of each minute's digest times its number since 1970
(modulo 2^128), by which a bucket tells in which minutes its events are."""


def usage_buckets(
    client: StoreClient, grain: str, from_s: int, before_s: int, customers: Sequence[str] | None
) -> pa.Table:
    """(customer, start in seconds, events, and SUM_WORDS as uint64) of windows that start in [from_s, before_s), of
    some customers or, with None, of all. `grain`: month, day, hour or minute. Raises StoreError."""
    minute = "toUInt128(intDiv(toUnixTimestamp(stored.window_start), 60))"
    words = [
        f"toUInt64({wide}) AS {wide}_low, toUInt64(bitShiftRight({wide}, 64)) AS {wide}_high"
        for wide in ("digest", "moment")
    ]
    return client.arrow(
        f"SELECT customer, toUInt32(start) AS start, events, {', '.join(words)} FROM ("
        f"SELECT customer, {_STARTS[grain]} AS start, sum(stored.events) AS events, sum(stored.digest) AS digest, "
        f"sum(toUInt128(stored.digest * {minute})) AS moment "
        f"FROM rollup_minute AS stored WHERE {_WITHIN} AND {_FIRST_SLOT} GROUP BY customer, start) "
        "WHERE events != 0 OR digest != 0",
        _parameters(from_s, before_s, customers),
    )


def usage_quantities(
    client: StoreClient, from_s: int, before_s: int, customers: Sequence[str] | None
) -> dict[tuple[str, str], int]:
    """The quantity of each customer and meter as events have it, without what was corrected. Raises StoreError."""
    found = client.rows(
        "SELECT customer, splitByChar('/', name)[1] AS meter, sum(quantity) FROM ("
        "SELECT customer, name, quantity FROM ("
        f"SELECT customer, splitByChar(',', meters) AS names, {_SUMS} FROM rollup_minute WHERE {_WITHIN} "
        f"GROUP BY customer, meters) ARRAY JOIN names AS name, [{_SLOTS}] AS quantity WHERE name != '' "
        "UNION ALL "
        "SELECT customer, meter AS name, -toInt256(quantity) AS quantity FROM corrections "
        f"WHERE {_WITHIN} AND kind = 'correction') GROUP BY customer, meter",
        _parameters(from_s, before_s, customers),
    )
    return {(str(customer), str(meter)): int(quantity) for customer, meter, quantity in found}


def usage_by_model(
    client: StoreClient, grain: str, from_s: int, before_s: int, customers: Sequence[str] | None
) -> list[tuple[int, str, str, str, int]]:
    """(start in seconds, customer, model, meter, quantity) by windows of the grain, with what was corrected, which
    is of no model that could be told from the rest. Raises StoreError."""
    found = client.rows(
        "SELECT start, customer, model, splitByChar('/', name)[1] AS meter, sum(quantity) FROM ("
        f"SELECT {_STARTS[grain]} AS start, customer, model, splitByChar(',', meters) AS names, {_SUMS} "
        f"FROM rollup_minute WHERE {_WITHIN} GROUP BY start, customer, model, meters) "
        f"ARRAY JOIN names AS name, [{_SLOTS}] AS quantity WHERE name != '' GROUP BY start, customer, model, meter",
        _parameters(from_s, before_s, customers),
    )
    return [
        (int(start), str(customer), str(model), str(meter), int(sum_)) for start, customer, model, meter, sum_ in found
    ]


def corrected_quantities(client: StoreClient, from_s: int, before_s: int) -> dict[str, int]:
    """What corrections have added to each meter, below 0 where they took away. Raises StoreError."""
    found = client.rows(
        "SELECT meter, sum(toInt256(quantity)) AS added FROM corrections WHERE kind = 'correction' AND "
        "window_start >= toDateTime({from_s:UInt32}, 'UTC') AND window_start < toDateTime({before_s:UInt32}, 'UTC') "
        "GROUP BY meter HAVING added != 0 ORDER BY meter",
        {"from_s": from_s, "before_s": before_s},
    )
    return {str(meter): int(added) for meter, added in found}


def conflicting_payloads(client: StoreClient, fingerprints: Sequence[int]) -> list[bytes]:
    """The payloads of these events that were set aside because their identity was known with another one. Raises
    StoreError."""
    found = client.rows(
        "SELECT payload FROM conflicting_events WHERE has({fingerprints:Array(UInt128)}, fingerprint)",
        {"fingerprints": list(fingerprints)},
    )
    return [payload if isinstance(payload, bytes) else str(payload).encode() for (payload,) in found]


def late_identities(client: StoreClient, ids: Sequence[str]) -> set[tuple[str, str]]:
    """(source, id) of those that were set aside because they were late. Raises StoreError."""
    found = client.rows("SELECT source, id FROM late_events WHERE has({ids:Array(String)}, id)", {"ids": list(ids)})
    return {(str(source), str(id_)) for source, id_ in found}


def lineages(client: StoreClient) -> list[str]:
    """The lineages that have published here. Raises StoreError."""
    return [str(row[0]) for row in client.rows("SELECT lineage FROM lineages ORDER BY lineage")]
