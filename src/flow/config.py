"""The config: one YAML file, read once, checked whole (DESIGN 3.6). Start at `load_config`.

In the file a duration is `200ms` or `72h` and a size `64MiB`; here they are integers, and their names carry
the unit. Paths are relative to the file. `${NAME}` in a value is replaced from the environment, and what it
was replaced by never stands in a message: messages show values as they are written in the file, without
passwords. How each value is read is in `flow/config_values.py`.
"""

import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from .config_values import (
    COUNT,
    NAME,
    FilePath,
    Patterns,
    as_brokers,
    as_endpoint,
    as_globs,
    as_horizon_us,
    as_kept_us,
    as_listen,
    as_option,
    as_sources,
    as_text,
    as_threshold,
    as_topics,
    config_folder,
    count,
    duration,
    problem,
    size,
)
from .errors import ConfigError
from .yaml_nodes import Problems, Steps, compose, did_you_mean, kind_of, line_of, pairs, read_text, shown

_CLUSTER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ENVIRONMENT = re.compile(r"\$\{([^}]*)\}?")


class _Model(BaseModel):
    """Frozen; an unknown key is an error. A field's alias is its key in the file, its name has the unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


# ---- Sources -------------------------------------------------------------------------------------


class FilesSource(_Model):
    """Event files, in the order of their names within each pattern."""

    kind: Literal["files"]
    path: Patterns
    """Absolute paths, which may be globs."""
    format: Literal["auto", "ndjson", "parquet", "arrow"] = "auto"
    """`auto` goes by the suffix: .ndjson .jsonl .json .log (also with .gz), .parquet, .arrow."""


class LedgerSource(_Model):
    """A replay of accepted events."""

    kind: Literal["ledger"]
    path: FilePath | None = None
    """The ledger to read; None: the one of this config."""


Shape = Annotated[int | None, count(0, 10**12)]


class SyntheticSource(_Model):
    """Events made up from a seed. What is left out has the generator's default; it also checks the ranges."""

    kind: Literal["synthetic"]
    seed: Annotated[int, count(0, 2**63 - 1)] = 1
    events: Annotated[int, count(1, 10**13)] = 3_000_000
    customers: Shape = None
    zipf_permille: Shape = None
    projects: Shape = None
    features: Shape = None
    models: Shape = None
    regions: Shape = None
    combinations_per_customer: Shape = None
    duplicate_ppm: Shape = None
    retimed_ppm: Shape = None
    conflicting_ppm: Shape = None
    bad_ppm: Shape = None
    unpriced_ppm: Shape = None
    duplicate_distance_max: Shape = None
    disorder_s: Shape = None
    duration_s: Shape = None

    def given(self) -> dict[str, Any]:
        """The generator's arguments that the config gives."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)


KAFKA_REFUSED = {
    "allow.auto.create.topics": "a topic that is not there must stop the job",
    "auto.offset.reset": "a position that is gone must stop the job, never move it; `start` is for a new one",
    "auto.commit.enable": "positions are kept in the snapshot; `group` has them shown to lag tools",
    "auto.commit.interval.ms": "positions are kept in the snapshot; `group` has them shown to lag tools",
    "bootstrap.servers": "write it as `brokers`",
    "check.crcs": "checksums are always checked",
    "enable.auto.commit": "positions are kept in the snapshot; `group` has them shown to lag tools",
    "enable.auto.offset.store": "positions are kept in the snapshot; `group` has them shown to lag tools",
    "enable.partition.eof": "it is always on: positions follow it past transaction markers",
    "group.id": "write it as `group`",
    "group.instance.id": "there is no membership in a group, partitions are assigned",
    "isolation.level": "it is always read_committed: events of an aborted transaction must not be billed",
    "max.poll.interval.ms": "partitions are assigned: a pause, however long, loses none",
    "metadata.broker.list": "write it as `brokers`",
}
"""Options of librdkafka that a config cannot give, and why."""


class KafkaSource(_Model):
    """The partitions of Kafka topics: JSON, NDJSON or Arrow IPC in each message."""

    kind: Literal["kafka"]
    brokers: Annotated[tuple[str, ...], BeforeValidator(as_brokers)]
    """host:port, where to learn of the others."""
    topics: Annotated[tuple[str, ...], BeforeValidator(as_topics)] = Field(alias="topic")
    group: Annotated[str, BeforeValidator(as_text)] | None = None
    """The consumer group in which lag tools see how far the job is; nothing is ever read from there."""
    start: Literal["beginning", "end"] = "beginning"
    """Where a topic begins that this state directory has not read yet."""
    until: Literal["end"] | None = None
    """`end`: stop at what were the ends of the partitions at the start. None: never."""
    options: dict[str, Annotated[SecretStr, BeforeValidator(as_option)]] = {}
    """Of librdkafka, passed on as they are: security.protocol, sasl.password, ..."""


Source = FilesSource | KafkaSource | LedgerSource | SyntheticSource
SOURCES: dict[str, type[_Model]] = {
    "files": FilesSource,
    "kafka": KafkaSource,
    "ledger": LedgerSource,
    "synthetic": SyntheticSource,
}
"""A new kind of source is a model, one more in this union and one more in this table."""


# ---- The store -----------------------------------------------------------------------------------


class Store(_Model):
    """Where rollups go: ClickHouse embedded in this process (chdb), or a ClickHouse server.

    `chdb:run/store` is a folder relative to the config, `chdb:///var/lib/store` an absolute one. A server is
    `clickhouse://user:password@host:8123/database`, with `?secure=true` for TLS and `?cluster=NAME` for tables that all
    servers of this cluster hold.
    """

    kind: Literal["chdb", "clickhouse"]
    path: Path | None = None
    """The folder; chdb only."""
    host: str | None = None
    port: int | None = None
    """Of the HTTP interface."""
    user: str | None = None
    password: SecretStr | None = None
    database: str = "tallyflow"
    secure: bool = False
    cluster: str | None = None
    """As the server's `remote_servers` names it; None: the tables are on that one server."""

    @property
    def url(self) -> str:
        """The store for people to read: without its password."""
        if self.kind == "chdb":
            return f"chdb://{self.path}"
        host = f"[{self.host}]" if ":" in str(self.host) else self.host
        options = ["secure=true"] * self.secure + [f"cluster={self.cluster}"] * (self.cluster is not None)
        return f"clickhouse://{self.user}@{host}:{self.port}/{self.database}{'?' * bool(options)}{'&'.join(options)}"


def parse_store(url: str, folder: Path) -> Store:
    """A store by its URL alone; a relative path begins at `folder`. Raises ConfigError."""
    try:
        return _store_of(url, folder)
    except PydanticCustomError as error:
        raise ConfigError(f"{url.partition(':')[0]}:...: {error.message()}") from None  # it may hold a password


def parse_threshold(text: str) -> Fraction:
    """A threshold by itself. Raises ConfigError."""
    try:
        return as_threshold(text)
    except PydanticCustomError as error:
        raise ConfigError(f"threshold: '{text}' {error.message()}") from None


def _store(value: object, info: ValidationInfo) -> Store:
    return value if isinstance(value, Store) else _store_of(as_text(value), config_folder(info))


def _store_of(url: str, folder: Path) -> Store:
    if url.startswith("chdb:"):
        return _chdb_store(url.removeprefix("chdb:"), folder)
    if url.startswith("clickhouse:"):
        return _clickhouse_store(url)
    raise problem("is not a store; write chdb:run/store or clickhouse://user:password@host:8123/tallyflow")


def _chdb_store(place: str, folder: Path) -> Store:
    if place.startswith("//") and not place.startswith("///"):
        # By the rules of URLs this would be a host; or was a relative folder meant, or an absolute one?
        relative = f"chdb:{place[2:]}" if place[2:] else "chdb:run/store"
        raise problem(f"is ambiguous; write {relative} (relative to this file) or chdb:///absolute/path")
    path = "/" + place.lstrip("/") if place.startswith("/") else place
    if path in ("", "/"):
        raise problem("names no folder; write chdb:run/store or chdb:///absolute/path")
    return Store(kind="chdb", path=folder / path)


def _clickhouse_store(url: str) -> Store:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise problem("has a host or port that is none") from None
    if not parts.hostname:
        raise problem("names no host; write clickhouse://user:password@host:8123/tallyflow")
    database = unquote(parts.path.removeprefix("/")) or "tallyflow"
    if not NAME.fullmatch(database):
        raise problem("has a database whose name is not letters, digits and _")
    options = parse_qsl(parts.query, keep_blank_values=True)
    cluster = dict(options).get("cluster")
    known = (("secure", "true"), ("secure", "false"), ("cluster", cluster))
    if parts.fragment or any(option not in known for option in options):
        raise problem(
            "has an option other than ?secure=true and ?cluster=NAME; write # and ? of a password as %23 and %3F"
        )
    if cluster is not None and not _CLUSTER.fullmatch(cluster):
        raise problem("has a cluster whose name is not letters, digits, _, - and dots")
    secure = ("secure", "true") in options
    return Store(
        kind="clickhouse",
        host=parts.hostname,
        port=port or (8443 if secure else 8123),
        user=unquote(parts.username or "default"),
        password=SecretStr(unquote(parts.password or "")),
        database=database,
        secure=secure,
        cluster=cluster,
    )


# ---- The whole -----------------------------------------------------------------------------------


class Dedup(_Model):
    """How far back a duplicate is caught."""

    horizon_us: Annotated[int | None, BeforeValidator(as_horizon_us)] = Field(
        alias="horizon", default=72 * 3_600_000_000
    )
    """Event time behind the watermark; None: unbounded."""
    generations: Annotated[int, count(1, 1000)] = 6
    """In how many slices the horizon is kept and retired."""
    memory_bytes_max: Annotated[int, size("64MiB", "1000TiB")] = Field(alias="memory_max", default=8 * 2**30)
    """What fingerprints may take of memory, all shards together; the rest of them is on disk."""
    filters_kept_us: Annotated[int | None, BeforeValidator(as_kept_us)] = Field(alias="filters_kept", default=None)
    """For how long, in event time behind the watermark, the filter of a retired generation stays; None: for good."""


class Limits(_Model):
    """The maximum of everything that could grow; each has a default that real use does not meet."""

    event_bytes_max: Annotated[int, size("256B", "1GiB")] = 2**20
    string_bytes_max: Annotated[int, size("16B", "1MiB")] = 1024
    quantity_max: Annotated[int, count(1, 2**63 - 1)] = 10**12
    meters_per_event_max: Annotated[int, count(1, 1000)] = 64
    clock_skew_us: Annotated[int, duration("0s", "365d")] = Field(alias="clock_skew", default=300_000_000)
    """How far ahead of now an event's time may be."""
    outbox_bytes_max: Annotated[int, size("1MiB", "1000TiB")] = 10 * 2**30
    """Blocks that wait for ClickHouse; when they reach it, the source pauses."""
    batch_rows: Annotated[int, count(1, 2**22)] = 131_072
    """Rows of a batch that a source aims at."""
    stop_wait_us: Annotated[int, duration("0s", "1d")] = Field(alias="stop_wait", default=20_000_000)
    """How long a run that a signal has stopped waits for a store that does not take its blocks."""
    stall_us: Annotated[int, duration("1s", "1d")] = Field(alias="stall", default=60_000_000)
    """How long a process of a cluster, or another host of it, may show no life before all are started again."""


class Metrics(_Model):
    """Where metrics and health are served over HTTP: `/metrics`, `/healthz`, `/readyz`."""

    listen: Annotated[str, BeforeValidator(as_listen)]
    """host:port of the first process of a host; each further one there takes the next port."""

    def address(self, process: int = 0) -> tuple[str, int]:
        """Host and port of the process of this number on its host."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port) + process


class Log(_Model):
    """What is told on stderr, and how."""

    format: Literal["pretty", "json"] = "pretty"
    """For people, or an object a line for a collector."""
    level: Literal["debug", "info", "warning", "error"] = "warning"


class Traces(_Model):
    """Where OpenTelemetry spans go; needs the extra `otel`."""

    endpoint: Annotated[str, BeforeValidator(as_endpoint)]
    """An OTLP/HTTP collector, for example http://collector:4318/v1/traces."""


Factor = Annotated[int, count(2, 10**6)]


class Anomalies(_Model):
    """What is flagged for a person to look at, and never held up: docs/anomalies.md."""

    enabled: bool = True
    grace_us: Annotated[int, duration("0s", "24h")] = Field(alias="grace", default=600_000_000)
    """How far behind the watermark an event still counts for its hour here; billing knows no such limit."""
    events_min: Annotated[int, count(1, 10**9)] = 20
    """Fewer events in an hour, in the eyes of one writer, are not judged."""
    spike_factor: Factor = 20
    """A customer's hour, or a source's, against its usual one."""
    peak_factor: Factor = 4
    """The same against the highest of its last 24."""
    silence_hours: Annotated[int, count(1, 168)] = 3
    """How long a customer or source with use in each of 24 hours in a row must be gone."""
    new_factor: Annotated[int, count(1, 10**6)] = 2
    """An hour of a model that is new to a customer, against the usual hour of all its models."""
    share_factor: Factor = 5
    """A share of duplicate, rejected or unpriced events against the usual one."""
    loop_factor: Factor = 10
    """Requests of even size from one project, against its usual hour."""
    price_factor: Factor = 4
    """Price per unit of a model, in either direction."""
    tracked_max: Annotated[int, count(1, 10**6)] = 10_000
    """Customers, sources, projects and models that one writer watches, each."""


class Reconcile(_Model):
    """A second source that the store is held against while the job runs (docs/reconcile.md)."""

    against: Annotated[tuple[str, ...], BeforeValidator(as_sources)]
    """Event files or a provider's report (absolute, may be globs), a pipeline's config, or the URL of its store."""
    every_us: Annotated[int, duration("1s", "30d")] = Field(alias="every", default=600_000_000)
    back_us: Annotated[int, duration("1m", "3650d")] = Field(alias="back", default=2 * 86_400_000_000)
    """How far back of now windows are compared."""
    settle_us: Annotated[int, duration("0s", "30d")] = Field(alias="settle", default=600_000_000)
    """Windows that are younger are not compared: both pipelines may still be at them."""
    threshold: Annotated[Fraction, BeforeValidator(as_threshold)] = Fraction(1, 10_000)
    mapping: FilePath | None = None
    """Of a provider's report."""
    models: Annotated[tuple[str, ...], BeforeValidator(as_globs)] = ()
    """Of a provider's report: globs of the models here that it knows of; none: all."""


class Config(_Model):
    """Everything a run is told."""

    source: Annotated[Source, Field(discriminator="kind")]
    prices: FilePath
    rules: FilePath | None = None
    """The rule book; None: no rules."""
    require_approval: bool = False
    """Whether a version of the price book must name an approver who is not its author."""
    store: Annotated[Store, BeforeValidator(_store)]
    state_dir: FilePath
    ledger: FilePath | None = None
    """A folder of Parquet; None: no ledger is kept."""
    dedup: Dedup = Dedup()
    epoch_us: Annotated[int, duration("50ms", "1h")] = Field(alias="epoch", default=5_000_000)
    shards: Annotated[int, count(1, 256)] = 1
    limits: Limits = Limits()
    metrics: Metrics | None = None
    """None: no port is opened."""
    log: Log = Log()
    traces: Traces | None = None
    """None: no spans are made."""
    anomalies: Anomalies = Anomalies()
    reconcile: Reconcile | None = None
    """None: only `tallyflow reconcile` does it."""


# ---- Reading -------------------------------------------------------------------------------------


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Reads and checks a config file. Raises ConfigError with every error found, each with its line.

    environment: what `${NAME}` is replaced from; None: this process's own.
    """
    return parse_config(read_text(path), str(path), path.absolute().parent, environment)


def parse_config(text: str, name: str, folder: Path, environment: Mapping[str, str] | None = None) -> Config:
    """`load_config` of text; `name` stands for the file in messages, relative paths begin at `folder`."""
    problems = Problems(name)
    reader = _Reader(problems, os.environ if environment is None else environment)
    values = reader.value(compose(text, name), ())
    try:
        config = Config.model_validate(values, context={"folder": folder})
        _check_together(config, reader)
        problems.raise_if_any()
        return config
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            reader.explain(details)
    problems.raise_if_any()
    raise AssertionError("a ValidationError without an error")


def _check_together(config: Config, reader: "_Reader") -> None:
    """What no field can check alone."""
    keys_of: dict[Path, str] = {}
    for key, folder in (
        ("state_dir", config.state_dir),
        ("store", config.store.path),
        ("ledger", config.ledger),
    ):
        if folder is not None and (other := keys_of.setdefault(folder.absolute(), key)) != key:
            reader.problem((key,), f"is the same folder as {other}; give each its own")
    if isinstance(config.source, LedgerSource) and config.source.path is None and config.ledger is None:
        reader.problem(("source", "path"), "is missing, and this config has no ledger to read instead")
    if isinstance(config.source, KafkaSource):
        for option in config.source.options:
            if option in KAFKA_REFUSED:
                reader.problem(("source", "options", option), f"cannot be set; {KAFKA_REFUSED[option]}")


class _Reader:
    """Turns nodes into values for pydantic, and pydantic's errors back into lines of the file."""

    def __init__(self, problems: Problems, environment: Mapping[str, str]) -> None:
        self.problems = problems
        self.environment = environment
        self.nodes: dict[Steps, yaml.Node] = {}
        self.unusable: set[Steps] = set()

    def value(self, node: yaml.Node, steps: Steps) -> Any:
        """Text, int, bool, None, list or dict; a float stays text, since no value of a config is one."""
        self.nodes[steps] = node
        if isinstance(node, yaml.MappingNode):
            found = pairs(node, steps, self.problems)
            return {key: self.value(child, (*steps, key)) for key, (_, child) in found.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*steps, n)) for n, child in enumerate(node.value)]
        kind = kind_of(node)
        if kind == "null":
            return None
        if kind == "bool":
            return node.value.lower() in ("yes", "true", "on")
        if kind == "int" and COUNT.fullmatch(node.value):
            return int(node.value.replace("_", ""))
        return self._replaced(node, steps)

    def _replaced(self, node: yaml.Node, steps: Steps) -> str:
        """A text with `${NAME}` replaced; within `user:password@` of a URL, quoted as URLs want it."""
        text = str(node.value)
        credentials = range(text.find("://"), text.rfind("@")) if "://" in text else range(0)

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if not NAME.fullmatch(name) or not match[0].endswith("}"):
                self.problems.add(line_of(node), steps, "'${' begins an environment variable; write ${NAME}")
            elif name not in self.environment:
                self.problems.add(line_of(node), steps, f"environment variable {name} is not set")
            else:
                value = self.environment[name]
                return quote(value, safe="") if match.start() in credentials else value
            self.unusable.add(steps)
            return ""

        return _ENVIRONMENT.sub(replace, text)

    def _written(self, steps: Steps) -> str:
        """A value as in the file; nothing of the store, whose mistyped URL may hold a password anywhere."""
        node = self.nodes.get(steps)
        if node is None or steps == ("store",):
            return ""
        if isinstance(node, yaml.ScalarNode) and "@" in node.value:
            return f"'***{node.value[node.value.rindex('@') :]}' "
        return f"{shown(node)} "

    def problem(self, steps: Steps, message: str) -> None:
        """Adds a problem at the line of what stands at `steps`, or would stand there."""
        found = steps
        while found not in self.nodes:
            found = found[:-1]
        self.problems.add(line_of(self.nodes[found]), steps, message)

    def explain(self, details: ErrorDetails) -> None:
        """Adds one of pydantic's errors, in the words of the file."""
        loc, kind = details["loc"], details["type"]
        in_source = loc[:1] == ("source",) and len(loc) > 1
        steps = (loc[0], *loc[2:]) if in_source else loc  # loc[1] is the source's kind, which is no key
        if kind.startswith("union_tag"):
            steps = (*steps, "kind")
        if any(unusable[: len(steps)] == steps for unusable in self.unusable):
            return  # a variable that is not set has been reported
        written = self._written(steps)
        match kind:
            case "missing" | "union_tag_not_found":
                message = "is missing"
            case "extra_forbidden":
                message = f"unknown key; {did_you_mean(str(steps[-1]), _keys(loc))}"
            case "union_tag_invalid":
                message = f"{written}{_kind_message(str(details['ctx']['tag']))}"
            case "literal_error":
                message = f"{written}is none of {details['ctx']['expected']}"
            case "model_type" | "model_attributes_type":
                message = f"{written}stands where keys and values are expected"
            case _:
                message = f"{written}{details['msg']}"
        self.problem(steps, message)


def _keys(loc: Steps) -> list[str]:
    """The keys that may stand where pydantic found an unknown one."""
    models: dict[Steps, type[_Model]] = {
        ("dedup",): Dedup,
        ("limits",): Limits,
        ("metrics",): Metrics,
        ("log",): Log,
        ("traces",): Traces,
        ("anomalies",): Anomalies,
        ("reconcile",): Reconcile,
    }
    models |= {("source", kind): model for kind, model in SOURCES.items()}
    fields = models.get(loc[:-1], Config).model_fields
    return [field.alias or name for name, field in fields.items()]


def _kind_message(kind: str) -> str:
    return f"is not a kind of source; {did_you_mean(kind, SOURCES)}"
