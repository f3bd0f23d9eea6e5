"""The other side of a reconciliation, found from how it is named."""

import glob
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..config import Config, Store, load_config, parse_store
from ..errors import ConfigError
from ..prices.book import load_price_book
from ..schema import STANDARD_METERS
from ..steps.batches import Limits
from .asked import Scope
from .buckets import Names
from .from_log import LogSide
from .from_store import StoreSide
from .provider import UsageReport
from .provider_csv import read_csv
from .provider_json import is_usage_page, read_pages
from .provider_mapping import ReportMapping, read_mapping

_STORES = ("chdb:", "clickhouse:")
_CONFIGS = (".yaml", ".yml")


def other_side(
    config: Config, against: Sequence[str], scope: Scope, names: Names, now_us: int, on_step: Callable[[str], None]
) -> StoreSide | LogSide:
    """Raises ConfigError, SourceError, OverflowStop."""
    first, *more = against
    if first.startswith(_STORES) or first.endswith(_CONFIGS):
        if more:
            raise ConfigError(f"--against {more[0]}: a store is compared with one other store")
        side = _store_side(first, names)
        if side.store == config.store:
            raise ConfigError(f"--against {first}: that is the store itself")
        return side
    paths = find_logs(against)
    return LogSide(", ".join(against), paths, names, scope, limits_of(config), now_us, on_step)


def usage_report(against: Sequence[str], mapping: Path | None) -> UsageReport | None:
    """A provider's usage report, if that is what the files are. Raises ConfigError."""
    if against[0].startswith(_STORES) or against[0].endswith(_CONFIGS):
        return None
    paths = find_logs(against)
    csv = [path.suffix.lower() == ".csv" for path in paths]
    pages = [path.suffix.lower() == ".json" and is_usage_page(path) for path in paths]
    if not (any(csv) or any(pages)):
        return None
    if not (all(csv) or all(pages)):
        raise ConfigError(f"--against {', '.join(against)}: files of several kinds; compare with one at a time")
    read = read_mapping(mapping) if mapping is not None else ReportMapping()
    return read_csv(paths, read) if csv[0] else read_pages(paths, read)


def store_of_config(against: str) -> Store | None:
    """The store of a pipeline that is named by its config; None: something else is named. Raises ConfigError."""
    return load_config(Path(against)).store if against.endswith(_CONFIGS) else None


def _store_side(against: str, names: Names) -> StoreSide:
    if against.startswith(_STORES):
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
