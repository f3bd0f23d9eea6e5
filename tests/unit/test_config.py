"""Goal: a config is read whole or refused with every error at its line, and never shows a secret.

Method: a table of configs with their exact messages; one with everything; secrets looked for in messages.
"""

import dataclasses
import glob
from pathlib import Path

import pytest

from flow.config import Config, FilesSource, Limits, Store, SyntheticSource, load_config, parse_config
from flow.errors import ConfigError
from flow.generate import Synthetic

SAMPLE = Path(__file__).resolve().parents[2] / "src" / "flow" / "samples" / "config.yaml"
BASE = {
    "source": "{kind: files, path: events/*.ndjson}",
    "prices": "prices.yaml",
    "store": "chdb:run/store",
    "state_dir": "run/state",
}


def text(**changes: str | None) -> str:
    return "".join(f"{key}: {value}\n" for key, value in (BASE | changes).items() if value is not None)


def read(source: str, **environment: str) -> Config:
    return parse_config(source, "c.yaml", Path("/etc/tallyflow"), environment)


def errors_of(source: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(source, **environment)
    return caught.value.errors


def test_defaults() -> None:
    config = read(text())
    assert config.source == FilesSource(kind="files", path=("/etc/tallyflow/events/*.ndjson",))
    assert config.prices == Path("/etc/tallyflow/prices.yaml")
    assert config.store == Store(kind="chdb", path=Path("/etc/tallyflow/run/store"))
    assert config.ledger is None
    assert config.dedup.horizon_us == 72 * 3_600_000_000
    assert config.dedup.generations == 6
    assert config.dedup.memory_bytes_max == 8 * 2**30
    assert config.dedup.filters_kept_us is None
    assert config.epoch_us == 5_000_000
    assert config.shards == 1
    assert config.limits == Limits()
    assert config.limits.outbox_bytes_max == 10 * 2**30
    assert config.limits.clock_skew_us == 300_000_000


def test_everything_set() -> None:
    config = read(
        text(
            source="{kind: files, path: [/a/*.parquet, b.arrow], format: parquet}",
            ledger="/var/lib/ledger",
            dedup="{horizon: unbounded, generations: 1, memory_max: 64MiB, filters_kept: 90d}",
            epoch="50ms",
            shards="256",
            limits="{event_bytes_max: 64KiB, string_bytes_max: 2kB, quantity_max: 9223372036854775807, "
            "meters_per_event_max: 3, clock_skew: 0s, outbox_bytes_max: 10737418240, "
            "batch_rows: '${ROWS}', stop_wait: 0s, stall: 1d}",
        ),
        ROWS="1",
    )
    assert isinstance(config.source, FilesSource)
    assert config.source.path == ("/a/*.parquet", "/etc/tallyflow/b.arrow")
    assert config.source.format == "parquet"
    assert config.ledger == Path("/var/lib/ledger")
    assert (config.dedup.horizon_us, config.dedup.generations, config.dedup.memory_bytes_max) == (None, 1, 2**26)
    assert config.dedup.filters_kept_us == 90 * 86_400_000_000
    assert (config.epoch_us, config.shards) == (50_000, 256)
    assert config.limits.model_dump() == {
        "event_bytes_max": 65_536,
        "string_bytes_max": 2_000,
        "quantity_max": 2**63 - 1,
        "meters_per_event_max": 3,
        "clock_skew_us": 0,
        "outbox_bytes_max": 10 * 2**30,
        "batch_rows": 1,
        "stop_wait_us": 0,
        "stall_us": 86_400_000_000,
    }


def test_the_sample_has_the_defaults() -> None:
    """What the starter config says of a default is one, also where it is commented out."""
    lines = SAMPLE.read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith("# limits:")))
    config = read("\n".join([*lines[:start], *(line.removeprefix("# ") for line in lines[start:])]))
    assert config.limits == Limits()
    assert (config.dedup, config.epoch_us, config.shards) == (
        read(text()).dedup,
        read(text()).epoch_us,
        read(text()).shards,
    )


@pytest.mark.parametrize(
    ("written", "horizon_us"),
    [
        ("1us", 1),
        ("200ms", 200_000),
        ("5s", 5_000_000),
        ("2m", 120_000_000),
        ("1h", 3_600_000_000),
        ("30d", 2592 * 10**9),
    ],
)
def test_durations(written: str, horizon_us: int) -> None:
    assert read(text(dedup=f"{{horizon: {written}}}")).dedup.horizon_us == horizon_us


NO_HORIZON = "is not a duration; write 200ms, 5s, 72h or unbounded"
NO_SIZE = "is not a size; write 1048576, 64MiB or 2GB"
KNOWN = (
    "source, prices, rules, require_approval, store, state_dir, ledger, dedup, epoch, shards, limits, metrics, log, "
    "traces, anomalies, reconcile"
)


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        (
            {"dedup": "\n  horizon: 72x"},
            [f"c.yaml:6: dedup.horizon: '72x' {NO_HORIZON}"],
        ),
        (
            {"dedup": "{horizon: 0s}"},
            ["c.yaml:5: dedup.horizon: '0s' catches no duplicate; write unbounded for no limit"],
        ),
        (
            {"dedup": "{horizon: 72}"},
            [f"c.yaml:5: dedup.horizon: '72' {NO_HORIZON}"],
        ),
        ({"dedup": "{horizn: 72h}"}, ["c.yaml:5: dedup.horizn: unknown key; did you mean horizon?"]),
        ({"dedup": "{horizon_us: 72h}"}, ["c.yaml:5: dedup.horizon_us: unknown key; did you mean horizon?"]),
        (
            {"dedup": "{filters_kept: 0d}"},
            ["c.yaml:5: dedup.filters_kept: '0d' keeps nothing; write unbounded for no limit"],
        ),
        (
            {"dedup": "{filters_kept: 90}"},
            ["c.yaml:5: dedup.filters_kept: '90' is not a duration; write 30d, 400d or unbounded"],
        ),
        ({"dedup": "{generations: 0}"}, ["c.yaml:5: dedup.generations: '0' is too small; at least 1"]),
        ({"dedup": "{generations: 1.5}"}, ["c.yaml:5: dedup.generations: '1.5' is not a whole number"]),
        ({"dedup": ""}, ["c.yaml:5: dedup: nothing stands where keys and values are expected"]),
        ({"epoch": "49ms"}, ["c.yaml:5: epoch: '49ms' is too small; at least 50ms"]),
        ({"epoch": "[5s]"}, ["c.yaml:5: epoch: a list is not a duration; write 200ms, 5s or 72h"]),
        ({"epoch": "-5s"}, ["c.yaml:5: epoch: '-5s' is not a duration; write 200ms, 5s or 72h"]),
        ({"epoch_us": "5s"}, ["c.yaml:5: epoch_us: unknown key; did you mean epoch?"]),
        ({"zzz": "5s"}, [f"c.yaml:5: zzz: unknown key; known here: {KNOWN}"]),
        ({"shards": "257"}, ["c.yaml:5: shards: '257' is too large; at most 256"]),
        ({"shards": "yes"}, ["c.yaml:5: shards: 'yes' is not a whole number"]),
        (
            {"limits": "{outbox_bytes_max: 3 XB}"},
            [f"c.yaml:5: limits.outbox_bytes_max: '3 XB' {NO_SIZE}"],
        ),
        ({"limits": "{quantity_max: 1e12}"}, ["c.yaml:5: limits.quantity_max: '1e12' is not a whole number"]),
        (
            {"limits": "{quantity_max: 9223372036854775808}"},
            ["c.yaml:5: limits.quantity_max: '9223372036854775808' is too large; at most 9223372036854775807"],
        ),
        ({"prices": None}, ["c.yaml:1: prices: is missing"]),
        ({"prices": "3"}, ["c.yaml:2: prices: '3' is not text; quote it"]),
        ({"ledger": "run/state"}, ["c.yaml:5: ledger: is the same folder as state_dir; give each its own"]),
        (
            {"store": "chdb:run/state"},
            ["c.yaml:3: store: is the same folder as state_dir; give each its own"],
        ),
        ({"source": None}, ["c.yaml:1: source: is missing"]),
        ({"source": "events"}, ["c.yaml:1: source: 'events' stands where keys and values are expected"]),
        ({"source": "{path: x}"}, ["c.yaml:1: source.kind: is missing"]),
        (
            {"source": "{kind: file}"},
            ["c.yaml:1: source.kind: 'file' is not a kind of source; did you mean files?"],
        ),
        (
            {"source": "{kind: kafkas}"},
            ["c.yaml:1: source.kind: 'kafkas' is not a kind of source; did you mean kafka?"],
        ),
        ({"source": "{kind: files}"}, ["c.yaml:1: source.path: is missing"]),
        ({"source": "{kind: files, path: []}"}, ["c.yaml:1: source.path: a list names no files"]),
        (
            {"source": "{kind: files, path: [a, 3]}"},
            ["c.yaml:1: source.path: a list holds something that is not text; quote it"],
        ),
        (
            {"source": "{kind: files, path: a, format: csv}"},
            ["c.yaml:1: source.format: 'csv' is none of 'auto', 'ndjson', 'parquet' or 'arrow'"],
        ),
        (
            {"source": "{kind: ledger}"},
            ["c.yaml:1: source.path: is missing, and this config has no ledger to read instead"],
        ),
        (
            {"source": "{kind: synthetic, evnts: 3, seed: -1}"},
            [
                "c.yaml:1: source.seed: '-1' is not a whole number",
                "c.yaml:1: source.evnts: unknown key; did you mean events?",
            ],
        ),
        ({"state_dir": "${NOPE}/state"}, ["c.yaml:4: state_dir: environment variable NOPE is not set"]),
        (
            {"source": "{kind: files, path: [a, '${NOPE}/b']}"},
            ["c.yaml:1: source.path[1]: environment variable NOPE is not set"],
        ),
        ({"state_dir": "'${}'"}, ["c.yaml:4: state_dir: '${' begins an environment variable; write ${NAME}"]),
        (
            {"state_dir": "'${NOPE'"},
            ["c.yaml:4: state_dir: '${' begins an environment variable; write ${NAME}"],
        ),
        (
            {"reconcile": '{against: "chdb:x", every: 10, threshold: 0.01, often: yes}'},
            [
                "c.yaml:5: reconcile.against: 'chdb:x' names an embedded store, which one process can open; name a "
                "server, or a log",
                "c.yaml:5: reconcile.every: '10' is not a duration; write 200ms, 5s or 72h",
                "c.yaml:5: reconcile.threshold: '0.01' is not a percentage; write 0.01%, or 0 where nothing may differ",
                "c.yaml:5: reconcile.often: unknown key; known here: against, every, back, settle, threshold, mapping, "
                "models",
            ],
        ),
        (
            {"metrics": "{listen: 9464}", "log": "{level: loud}", "traces": "{endpoint: collector, retries: 3}"},
            [
                "c.yaml:5: metrics.listen: '9464' is not text; quote it",
                "c.yaml:6: log.level: 'loud' is none of 'debug', 'info', 'warning' or 'error'",
                "c.yaml:7: traces.endpoint: 'collector' is not a URL; write http://collector:4318/v1/traces",
                "c.yaml:7: traces.retries: unknown key; known here: endpoint",
            ],
        ),
        (
            {"metrics": "{listen: '0.0.0.0'}"},
            [
                "c.yaml:5: metrics.listen: '0.0.0.0' is not host:port; write 127.0.0.1:9464, or 0.0.0.0:9464 for all "
                "interfaces"
            ],
        ),
        ({"epoch": "5s\nepoch: 6s"}, ["c.yaml:6: epoch: stands twice (first in line 5)"]),
        (
            {"epoch": "5x", "shards": "0", "state_dir": None, "horizon": "1h", "source": "{kind: fils}"},
            [
                "c.yaml:1: source.kind: 'fils' is not a kind of source; did you mean files?",
                "c.yaml:1: state_dir: is missing",
                "c.yaml:4: epoch: '5x' is not a duration; write 200ms, 5s or 72h",
                "c.yaml:5: shards: '0' is too small; at least 1",
                f"c.yaml:6: horizon: unknown key; known here: {KNOWN}",
            ],
        ),
    ],
)
def test_a_bad_config_is_refused(changes: dict[str, str | None], errors: list[str]) -> None:
    assert errors_of(text(**changes)) == errors


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("", "c.yaml: is empty; `tallyflow init` writes one to start from"),
        ("# nothing\n", "c.yaml: is empty; `tallyflow init` writes one to start from"),
        ("just text", "c.yaml:1: keys and values are expected, not 'just text'"),
        ("a: b: c", "c.yaml:1: not YAML: mapping values are not allowed in this context"),
        ("a: 1\n\tb: 2", "c.yaml:2: not YAML: found a tab character that violates indentation"),
        ("a: \x01", "c.yaml: not YAML: unacceptable character #x0001: control characters are not allowed"),
        (
            "a: {b: ${C}}",
            "c.yaml:1: not YAML: did not find expected ',' or '}'; within braces, quote a value that holds ${...}",
        ),
        ("a: *b", "c.yaml:1: not YAML: found undefined alias"),
        ("a: &a [*a]", "c.yaml:1: an anchor (&) on a mapping or list; write it out"),
        ("a: 1\n---\na: 2", "c.yaml:2: a second document begins here; one is expected"),
    ],
)
def test_what_is_no_config_gets_one_line(source: str, error: str) -> None:
    assert errors_of(source) == [error]


def test_deep_nesting_gets_one_line() -> None:
    (error,) = errors_of("a: " + "[" * 20_000)
    assert error.startswith("c.yaml")
    assert len(error) < 200


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file$"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"is a folder; a YAML file is expected$"):
        load_config(tmp_path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]*"
    folder.mkdir()
    (folder / "events").mkdir()
    (folder / "events" / "1.ndjson").touch()
    (folder / "c.yaml").write_text(text())
    config = load_config(folder / "c.yaml")
    assert config.prices == folder / "prices.yaml"
    assert isinstance(config.source, FilesSource)
    assert glob.glob(config.source.path[0]) == [str(folder / "events" / "1.ndjson")]  # noqa: PTH207


def test_the_generator_takes_what_the_config_gives() -> None:
    mirrored = {field.name for field in dataclasses.fields(Synthetic)} - {"start"}
    assert mirrored == set(SyntheticSource.model_fields) - {"kind"}
    source = read(text(source="{kind: synthetic, events: 10, customers: 7}")).source
    assert isinstance(source, SyntheticSource)
    assert Synthetic(**source.given()) == Synthetic(events=10, customers=7)
    assert Synthetic(**SyntheticSource(kind="synthetic").given()) == Synthetic()


@pytest.mark.parametrize(
    ("url", "store"),
    [
        ("chdb:run/store", Store(kind="chdb", path=Path("/etc/tallyflow/run/store"))),
        ("chdb:///var/store", Store(kind="chdb", path=Path("/var/store"))),
        ("chdb:/var/store", Store(kind="chdb", path=Path("/var/store"))),
        ("clickhouse://h", Store(kind="clickhouse", host="h", port=8123, user="default", password="")),
        (
            "clickhouse://u:p%40s@h:9/db?secure=true",
            Store(kind="clickhouse", host="h", port=9, user="u", password="p@s", database="db", secure=True),
        ),
        (
            "clickhouse://u@[::1]/?secure=true",
            Store(kind="clickhouse", host="::1", port=8443, user="u", password="", secure=True),
        ),
        (
            "clickhouse://h/db?cluster=eu-1.billing&secure=true",
            Store(
                kind="clickhouse",
                host="h",
                port=8443,
                user="default",
                password="",
                database="db",
                secure=True,
                cluster="eu-1.billing",
            ),
        ),
    ],
)
def test_stores(url: str, store: Store) -> None:
    assert read(text(store=url)).store == store


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (
            "chdb://run/store",
            "is ambiguous; write chdb:run/store (relative to this file) or chdb:///absolute/path",
        ),
        ("'chdb:'", "names no folder; write chdb:run/store or chdb:///absolute/path"),
        ("chdb:///", "names no folder; write chdb:run/store or chdb:///absolute/path"),
        ("clickhouse://", "names no host; write clickhouse://user:password@host:8123/tallyflow"),
        ("clickhouse://u:hunter2", "has a host or port that is none"),
        ("clickhouse://u:hunter2@h:99999", "has a host or port that is none"),
        ("clickhouse://u:hunter2@[h", "has a host or port that is none"),
        ("clickhouse:u:hunter2@h", "names no host; write clickhouse://user:password@host:8123/tallyflow"),
        ("clickhouse://u:hunter2@h/a-b", "has a database whose name is not letters, digits and _"),
        (
            "clickhouse://u:hunter2@h/a?tls=1",
            "has an option other than ?secure=true and ?cluster=NAME; write # and ? of a password as %23 and %3F",
        ),
        *(
            (
                f"clickhouse://u:hunter2@h/a?cluster={name}",
                "has a cluster whose name is not letters, digits, _, - and dots",
            )
            for name in ("", "a`b", "'{cluster}'", "a%20b")
        ),
        (
            "postgres://u:hunter2@h",
            "is not a store; write chdb:run/store or clickhouse://user:password@host:8123/tallyflow",
        ),
        ("{password: hunter2}", "is not text; quote it"),
        ("''", "is empty"),
    ],
)
def test_a_bad_store_is_refused_without_showing_it(url: str, problem: str) -> None:
    assert errors_of(text(store=url)) == [f"c.yaml:3: store: {problem}"]


SECRET = "p@ss/w:rd?#%[ü"


def test_a_secret_from_the_environment_is_read_and_not_shown() -> None:
    config = read(text(store="clickhouse://u:${PASSWORD}@h/db"), PASSWORD=SECRET)
    assert config.store.password is not None
    assert config.store.password.get_secret_value() == SECRET
    for shown in (repr(config), str(config), repr(config.store), config.store.url, config.model_dump_json()):
        assert SECRET not in shown
    assert config.store.url == "clickhouse://u@h:8123/db"
    assert read(text(store="clickhouse://h?secure=true&cluster=c")).store.url == (
        "clickhouse://default@h:8443/tallyflow?secure=true&cluster=c"
    )


def test_a_whole_url_from_the_environment() -> None:
    store = read(text(store="${STORE}"), STORE="clickhouse://u:p%40@h:1/db").store
    assert (store.host, store.port, store.database) == ("h", 1, "db")
    assert store.password is not None
    assert store.password.get_secret_value() == "p@"


@pytest.mark.parametrize("key", ["source", "prices", "store", "dedup", "epoch", "shards", "limits", "zzz"])
def test_no_message_shows_what_a_variable_holds(key: str) -> None:
    for value in ("${S}", "{kind: '${S}'}", "{horizon: '${S}'}", "['${S}', 3]", "{quantity_max: '${S}'}"):
        try:
            read(text(**{key: value, "shards": "0" if key != "shards" else value}), S="hunter2")
        except ConfigError as error:
            assert "hunter2" not in str(error)
            assert error.__suppress_context__ or "hunter2" not in repr(error.__context__)


def test_each_process_has_its_own_port() -> None:
    metrics = read(text(metrics="{listen: '[::1]:9464'}")).metrics
    assert metrics is not None
    assert [metrics.address(process) for process in (0, 2)] == [("::1", 9464), ("::1", 9466)]
