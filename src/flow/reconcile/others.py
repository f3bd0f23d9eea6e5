"""The other side of a reconciliation, found from how it is named."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..config import Config, load_config, parse_store
from ..errors import ConfigError
from ..prices.book import load_price_book
from ..schema import STANDARD_METERS
from ..steps.batches import Limits
from .asked import Scope
from .buckets import Names
from .from_log import LogSide
from .from_store import StoreSide


def other_side(config: Config, against: Sequence[str], scope: Scope, names: Names, now_us: int) -> StoreSide | LogSide:
    """Raises ConfigError, SourceError, OverflowStop."""
    first, *more = against
    if first.startswith(("chdb:", "clickhouse:")) or first.endswith((".yaml", ".yml")):
        if more:
            raise ConfigError(f"--against {more[0]}: a store is compared with one other store")
        side = _store_side(first, names)
        if side.store == config.store:
            raise ConfigError(f"--against {first}: that is the store itself")
        return side
    paths = find_logs(against)
    return LogSide(", ".join(against), paths, names, scope, limits_of(config), now_us)


def _store_side(against: str, names: Names) -> StoreSide:
    if against.startswith(("chdb:", "clickhouse:")):
        return StoreSide(parse_store(against, Path.cwd()), names)
    other = load_config(Path(against))
    return StoreSide(other.store, names, other.ledger)


def find_logs(against: Iterable[str]) -> list[Path]:
    """The files that these globs match, without repeats. Raises ConfigError."""
    found: dict[Path, None] = {}
    for pattern in against:
        matches = [Path(path) for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]  # noqa: PTH207 - sees dots
        if not matches:
            raise ConfigError(f"--against {pattern}: no such file, nor a store's URL (chdb:..., clickhouse://...)")
        found.update(dict.fromkeys(matches))
    return list(found)


def limits_of(config: Config) -> Limits:
    """What a run of this config holds events to. Raises ConfigError."""
    book, limits = load_price_book(config.prices, config.limits.quantity_max), config.limits
    return Limits(
        event_bytes_max=limits.event_bytes_max,
        string_bytes_max=limits.string_bytes_max,
        quantity_max=limits.quantity_max,
        meters_per_event_max=limits.meters_per_event_max,
        clock_skew_us=limits.clock_skew_us,
        known_meters=frozenset(STANDARD_METERS) | book.meters | book.unbilled,
    )
