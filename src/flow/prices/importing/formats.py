"""The formats by name, and a file of one of them as a book."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from ...errors import ConfigError
from ...yaml_nodes import read_text
from . import genai_prices, litellm, models_dev
from .collect import Collector, Imported, Kind
from .numbers import load_json


class Format(StrEnum):
    """Whose price file it is."""

    LITELLM = "litellm"
    MODELS_DEV = "models-dev"
    GENAI_PRICES = "genai-prices"


_READERS = {
    Format.LITELLM: litellm.read,
    Format.MODELS_DEV: models_dev.read,
    Format.GENAI_PRICES: genai_prices.read,
}


def import_file(
    format_: Format, path: Path, provider: str | None = None, from_us: int = 0, in_use: Sequence[str] = ()
) -> Imported:
    """The prices of a file.

    provider: its models only, without `provider/` before their names; None: all. from_us: since when those prices hold
    of which the file does not say it. in_use: names of models, as the book will have them, for which a pattern of the
    file may stand; only genai-prices has patterns.

    Raises ConfigError where the file is not of the format, or has no price.
    """
    if in_use and format_ is not Format.GENAI_PRICES:
        raise ConfigError(f"names in use are for {Format.GENAI_PRICES}: {format_} has whole names")
    root, twice = load_json(path)
    collector = Collector(provider, from_us, in_use)
    for key in twice:
        collector.remark(Kind.ASSUMED, key, "stands twice in one object of the file; the last one counts")
    _READERS[format_](root, str(path), collector)
    imported = collector.finish()
    if not imported.prices:
        of = f" of provider {provider}" if provider is not None else ""
        raise ConfigError(f"{path}: no price{of} that a book can hold; is the file of format {format_}?")
    return imported


def names_of(path: Path) -> list[str]:
    """Names of models, one a line. Raises ConfigError where the file cannot be read."""
    return [name for line in read_text(path).splitlines() if (name := line.strip())]
