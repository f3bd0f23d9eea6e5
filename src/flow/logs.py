"""What the program tells on stderr as it goes: a line for people, or a JSON object a line for a collector."""

import json
import logging
import sys
from datetime import UTC, datetime

from .config import Log

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every record has; all else was given with `extra`."""


def set_up(log: Log) -> None:
    """From now on all is told in this way."""
    handler = _Stderr()
    handler.setFormatter(_Json() if log.format == "json" else _Pretty())
    handler.addFilter(_ours_or_grave)
    logging.basicConfig(handlers=[handler], level=logging.ERROR, force=True)
    logging.getLogger(__package__).setLevel(log.level.upper())


def _ours_or_grave(record: logging.LogRecord) -> bool:
    """Packages of others are heard from ERROR on, the store's client never: what they say it of, we tell, or raise."""
    package = record.name.partition(".")[0]
    return package == __package__ or (record.levelno >= logging.ERROR and package != "clickhouse_connect")


class _Stderr(logging.Handler):
    """Writes to what is stderr at that moment: it changes while a progress display, or Bytewax, is on."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _given(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class _Pretty(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        given = "".join(f" {name}={value}" for name, value in _given(record).items())
        line = f"tallyflow: {time:%H:%M:%S} {record.levelname.lower()}: {record.getMessage()}{given}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **_given(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)
