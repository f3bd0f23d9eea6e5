"""What a window has of each meter, for one combination of dimensions."""

from collections.abc import Mapping

from ...schema import DIMENSIONS
from ..client import StoreClient

_SQL = f"""
SELECT meter, sum(toInt256(quantity))
FROM usage_by_minute
WHERE {" AND ".join(f"{name} = {{{name}:String}}" for name in DIMENSIONS)}
    AND window_start >= toDateTime({{start_s:UInt32}}, 'UTC')
    AND window_start < toDateTime({{start_s:UInt32}}, 'UTC') + INTERVAL 1 {{grain}}
GROUP BY meter
"""


def window_usage(client: StoreClient, start_s: int, grain: str, dimensions: Mapping[str, str]) -> dict[str, int]:
    """Quantities by meter, as published so far; `grain`: minute, hour, day, week or month. Raises StoreError."""
    values = {name: dimensions.get(name, "") for name in DIMENSIONS}
    rows = client.rows(_SQL.replace("{grain}", grain.upper()), {**values, "start_s": start_s})
    return {meter: int(quantity) for meter, quantity in rows}
