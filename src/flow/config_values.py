"""The values of a config, as they are written in the file, and what becomes of them.

Each function raises one of pydantic's errors, whose message follows the value as it stands in the file.
"""

import glob
import os
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

_DURATION_US = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_SIZE_BYTES: dict[str, int] = {"B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_DURATION = re.compile(r"([0-9]{1,9})(us|ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,18}) ?([KMGT]i?B|B)?", re.IGNORECASE)
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,12})?) ?%")
COUNT = re.compile(r"[0-9][0-9_]{0,30}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BROKER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def problem(message: str) -> PydanticCustomError:
    """The error with this message."""
    return PydanticCustomError("tallyflow", "{message}", {"message": message})


def _unit_us(text: object, example: str) -> int:
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise problem(f"is not a duration; write {example}")
    return int(match[1]) * _DURATION_US[match[2]]


def _unit_bytes(text: object) -> int:
    match = _SIZE.fullmatch(str(text)) if isinstance(text, str | int) else None
    if match is None:
        raise problem("is not a size; write 1048576, 64MiB or 2GB")
    unit = (match[2] or "B").upper().replace("I", "i")
    return int(match[1]) * _SIZE_BYTES[unit]


def _units(text: object) -> int:
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if isinstance(text, str) and COUNT.fullmatch(text):
        return int(text.replace("_", ""))
    raise problem("is not a whole number")


def _bounded(read: Callable[[object], int], least: int | str, most: int | str) -> BeforeValidator:
    """A value with bounds, which are written as in the file."""

    def check(value: object) -> int:
        number = read(value)
        if number < read(least):
            raise problem(f"is too small; at least {least}")
        if number > read(most):
            raise problem(f"is too large; at most {most}")
        return number

    return BeforeValidator(check)


def duration(least: str, most: str) -> BeforeValidator:
    return _bounded(lambda text: _unit_us(text, "200ms, 5s or 72h"), least, most)


def size(least: str, most: str) -> BeforeValidator:
    return _bounded(_unit_bytes, least, most)


def count(least: int, most: int) -> BeforeValidator:
    return _bounded(_units, least, most)


def as_threshold(value: object) -> Fraction:
    """`0.01%` as the Fraction 1/10,000."""
    match = _PERCENTAGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None and value not in (0, "0"):
        raise problem("is not a percentage; write 0.01%, or 0 where nothing may differ")
    return Fraction(Decimal(match[1])) / 100 if match is not None else Fraction(0)


def as_sources(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """URLs of stores as they are, and globs of files made absolute."""
    texts = _texts(value, "source")
    if any(text.startswith("chdb:") for text in texts):
        raise problem("names an embedded store, which one process can open; name a server, or a log")
    folder = config_folder(info)
    return tuple(text if "://" in text else _placed(text, folder) for text in texts)


def _placed(text: str, folder: Path) -> str:
    """A glob within a folder, or the path of a config, which is none."""
    inside = str(folder) if text.endswith((".yaml", ".yml")) else glob.escape(str(folder))
    return os.path.join(inside, text)  # noqa: PTH118 - a Path would tidy the pattern's text away


def as_globs(value: object) -> tuple[str, ...]:
    return _texts(value, "model")


def _us_or_unbounded(text: object, example: str, zero: str) -> int | None:
    if text == "unbounded":
        return None
    if (found_us := _unit_us(text, f"{example} or unbounded")) == 0:
        raise problem(f"{zero}; write unbounded for no limit")
    return found_us


def as_horizon_us(text: object) -> int | None:
    return _us_or_unbounded(text, "200ms, 5s, 72h", "catches no duplicate")


def as_kept_us(text: object) -> int | None:
    return _us_or_unbounded(text, "30d, 400d", "keeps nothing")


def as_text(value: object) -> str:
    if not isinstance(value, str):
        raise problem("is not text; quote it")
    if not value:
        raise problem("is empty")
    return value


def config_folder(info: ValidationInfo) -> Path:
    """Where relative paths begin: the config file's folder."""
    return Path(info.context["folder"]) if info.context else Path()


def as_path(value: object, info: ValidationInfo) -> Path:
    return value if isinstance(value, Path) else config_folder(info) / as_text(value)


def as_patterns(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """One glob or a list of them, made absolute; characters of the folder itself are never a pattern."""
    given = value if isinstance(value, list | tuple) else [value]
    texts = [text for text in given if isinstance(text, str) and text]
    if not texts:
        raise problem("names no files")
    if len(texts) < len(given):
        raise problem("holds something that is not text; quote it")
    folder = str(config_folder(info))
    return tuple(os.path.join(glob.escape(folder), text) for text in texts)  # noqa: PTH118 - a Path would tidy the pattern's text away


def _texts(value: object, what: str, separator: str | None = None) -> tuple[str, ...]:
    """One text or a list of them, without repeats; `separator` cuts a single text up as well."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(separator)] if separator else [value]
    if not isinstance(value, list | tuple) or not value:
        raise problem(f"names no {what}")
    if not all(isinstance(text, str) and text for text in value):
        raise problem(f"holds a {what} that is empty or not text; quote it")
    if len(set(value)) < len(value):
        raise problem(f"names a {what} twice")
    return tuple(value)


def as_brokers(value: object) -> tuple[str, ...]:
    brokers = _texts(value, "broker", ",")
    for broker in brokers:
        match = _BROKER.fullmatch(broker)
        if match is None or not 0 < int(match[1] or 9092) < 65536:
            raise problem("holds a broker that is not host:port; write kafka-1:9092 or [::1]:9092")
    return brokers


def as_topics(value: object) -> tuple[str, ...]:
    topics = _texts(value, "topic")
    if not all(_TOPIC.fullmatch(topic) and topic not in (".", "..") for topic in topics):
        raise problem("holds a topic that is not 1 to 249 letters, digits, dots, _ and -")
    return topics


def as_listen(value: object) -> str:
    text = as_text(value)
    match = _BROKER.fullmatch(text)
    if match is None or not 0 < int(match[1] or 0) < 65536:
        raise problem("is not host:port; write 127.0.0.1:9464, or 0.0.0.0:9464 for all interfaces")
    return text


def as_endpoint(value: object) -> str:
    text = as_text(value)
    if not text.startswith(("http://", "https://")) or not urlsplit(text).hostname:
        raise problem("is not a URL; write http://collector:4318/v1/traces")
    return text


def as_option(value: object) -> SecretStr:
    """A value of an option as librdkafka wants it: text."""
    if isinstance(value, SecretStr):
        return value
    if isinstance(value, bool):
        return SecretStr("true" if value else "false")
    if isinstance(value, str | int):
        return SecretStr(str(value))
    raise problem("is neither text, a number nor true or false")


FilePath = Annotated[Path, BeforeValidator(as_path)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(as_patterns)]
