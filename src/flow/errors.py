"""Every way things go wrong: exceptions that stop the process, and the reasons for which an event is rejected.

Bad input is data (`RejectReason`, kept with its bytes); a broken set-up or invariant is an exception. The exit code of
the command line is a property of the exception (DESIGN 3.5: 1 failure, 2 bad usage or config, 3 numbers do not agree).
"""

from enum import IntEnum


class TallyflowError(Exception):
    """A failure with one clear line for the user: what happened, where, and what to do."""

    exit_code = 1


class ConfigError(TallyflowError):
    """A config, price book or command line is wrong; holds every error found, not only the first."""

    exit_code = 2

    def __init__(self, errors: list[str] | str) -> None:
        self.errors = [errors] if isinstance(errors, str) else list(errors)
        super().__init__("\n".join(self.errors))


class RefusedStart(TallyflowError):
    """The set-up is well-formed, but starting would put numbers at risk (a lock, another lineage, a newer schema)."""

    exit_code = 2


class TakenOver(TallyflowError):
    """Another process has started on this lineage; this one may publish nothing more."""

    exit_code = 2


class SourceError(TallyflowError):
    """An input cannot be read as a whole (missing, not Parquet, replaced since the last run)."""


class PayloadError(TallyflowError):
    """A provider's payload that no event can be made of; the message says what in it is wrong."""


class EventError(TallyflowError):
    """An event that a run would reject, found where it is made."""


class NotAccepted(TallyflowError):
    """The client did not take an event: it is full, closed, or was made before a fork."""


class DeliveryError(TallyflowError):
    """A batch of events could not be handed on; it stays on disk and is sent again."""


class StateError(TallyflowError):
    """A file of the state directory is missing, cut or corrupt; the message names it."""


class EngineStopped(StateError):
    """Bytewax stopped, and says nothing that we know how to mend; in a cluster, mostly that another process is gone."""


class ClusterError(TallyflowError):
    """The processes of a cluster end again and again."""


class StoreError(TallyflowError):
    """ClickHouse refused something that a retry will not mend."""


class Unpublished(StoreError):
    """A signal ended the run before the store had taken all blocks; the next run publishes them."""


class PlanError(TallyflowError):
    """A plan says nothing of this usage, or needs to know more of it; the message names the quantity and the mend."""


class OverflowStop(TallyflowError):
    """A 128-bit count or amount would have wrapped; the job stops instead."""


class BalanceError(TallyflowError):
    """Numbers that must agree do not."""

    exit_code = 3


class RejectReason(IntEnum):
    """Why an event was rejected. Where several hold, the lowest number is the one recorded."""

    OVERSIZED = 1  # longer than limits.event_bytes_max
    TRUNCATED_INPUT = 2  # the input ends inside it (a cut gzip stream)
    INVALID_UTF8 = 3
    INVALID_JSON = 4  # not one JSON value, nested deeper than 64, or a lone surrogate
    NOT_AN_OBJECT = 5
    DUPLICATE_FIELD = 6  # a known field, or a meter, stands twice
    UNSUPPORTED_ENVELOPE = 7  # a CloudEvents `specversion` other than 1.0
    UNSUPPORTED_TYPE = 8  # a `type` other than llm.usage and usage.correction
    SCHEMA_MISMATCH = 9  # columnar: a column of a type that cannot be what its name says
    MISSING_ID = 10
    INVALID_ID = 11  # not a string, or longer than limits.string_bytes_max
    INVALID_SOURCE = 12
    MISSING_TIME = 13
    INVALID_TIME = 14
    TIME_WITHOUT_OFFSET = 15
    TIME_OUT_OF_RANGE = 16  # outside 1970-01-01 .. 2106-02-07, what DateTime can hold
    TIME_IN_FUTURE = 17  # beyond now + limits.clock_skew
    MISSING_CUSTOMER = 18
    INVALID_CUSTOMER = 19
    INVALID_DIMENSION = 20
    MISSING_METER = 21
    INVALID_METER_NAME = 22  # not [a-z][a-z0-9_]*, longer than 64, or `requests`, which is implicit
    TOO_MANY_METERS = 23  # more than limits.meters_per_event_max
    INVALID_QUANTITY = 24  # neither an integer nor a string of digits
    NEGATIVE_QUANTITY = 25
    QUANTITY_TOO_LARGE = 26  # above limits.quantity_max
    INVALID_ARROW = 27  # a message that begins as Arrow IPC and cannot be read to its end
    CORRECTION_OF_NOTHING = 28  # a usage.correction whose `corrects` names neither an event nor a window
    CORRECTION_WITHOUT_REASON = 29
    CORRECTION_WITHOUT_AUTHOR = 30
    INVALID_CORRECTION = 31  # it changes nothing, takes more than there was, or names what cannot be
    RULE = 32  # fails a rule of the rule book with severity `reject`; it was read well
