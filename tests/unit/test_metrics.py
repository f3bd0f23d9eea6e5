"""Metrics, spans and health, without a whole run: `tests/faults/test_health.py` has one."""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

import flow.store
from flow.config import Config, parse_config
from flow.errors import ConfigError, RefusedStart, StoreError
from flow.generate import prices_yaml
from flow.job import Job
from flow.metrics.depth import Depth, outbox_depth
from flow.metrics.health import Health
from flow.metrics.measures import Measures
from flow.metrics.observed import observed
from flow.metrics.observer import VIEW_TABLES, Observer
from flow.metrics.server import Endpoint
from flow.metrics.spans import ExportedSpans
from flow.prices.book import load_price_book
from flow.run import make_job, work
from flow.start import prepare
from flow.state.directory import StateDirectory

SETTINGS = """
source: {kind: synthetic, events: 400, seed: 3}
prices: prices.yaml
store: chdb:store
state_dir: state
epoch: 50ms
"""


def config(folder: Path, more: str = "") -> Config:
    (folder / "prices.yaml").write_text(prices_yaml())
    return parse_config(SETTINGS + more, "config.yaml", folder)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A job that could run."""
    settings = config(tmp_path)
    book = load_price_book(settings.prices, settings.limits.quantity_max)
    with StateDirectory(settings.state_dir) as directory:
        yield make_job(settings, book, directory, prepare(settings, directory, book.currency))


def test_each_view_is_read_from_the_table_that_is_named() -> None:
    (views,) = (Path(flow.store.__file__).parent / "ddl").glob("*views.sql")
    view = re.compile(r"VIEW exact_(usage_by_(?:minute|hour|day|week|month)) AS.*?FROM (rollup_\w+)", re.DOTALL)
    assert dict(view.findall(views.read_text())) == VIEW_TABLES


def test_spans_tell_of_each_epoch_and_block(job: Job) -> None:
    exporter = InMemorySpanExporter()
    spans = ExportedSpans("http://nowhere:4318/v1/traces", job.lineage.id, 0, exporter)
    Observer(job, Measures(CollectorRegistry()), spans).watch()
    share = work(job, 1)
    spans.close()
    made = exporter.get_finished_spans()
    epochs = {span.context.span_id: span for span in made if span.name == "epoch"}
    published = [span for span in made if span.name == "publish"]
    assert len(epochs) == len(published) == share.blocks > 0
    for span in published:
        assert span.parent is not None and span.attributes is not None
        epoch = epochs[span.parent.span_id]
        assert epoch.end_time <= span.start_time < span.end_time
        assert span.attributes["tallyflow.token"] == f"{job.lineage.id}-shard-000-{span.attributes['tallyflow.block']}"
        assert epoch.attributes["tallyflow.block"] == span.attributes["tallyflow.block"]
        assert span.resource.attributes["tallyflow.lineage"] == job.lineage.id


def test_without_the_extra_a_config_with_traces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError) as refused:
        ExportedSpans("http://nowhere:4318/v1/traces", "lineage", 0)
    assert "opentelemetry.sdk.trace is not installed; `pip install 'tallyflow[otel]'`" in str(refused.value)


def test_nothing_is_wrapped_unless_the_config_asks(job: Job) -> None:
    with observed(job):
        assert not {"decode", "route", "deduplicate", "rate"} & set(vars(job))
        assert "build_part" not in vars(job.sink)


def test_what_stopped_the_publisher_is_beyond_repair(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health(job)
    assert (health.dead(), health.unready(), health.ready()) == ([], [], True)

    def failed() -> None:
        raise StoreError("store x: refused; mend it")

    monkeypatch.setattr(job.publisher, "check", failed)
    assert health.dead() == ["the publisher has stopped: store x: refused; mend it"]
    assert not health.ready()


def test_a_full_outbox_and_a_stop_are_told(job: Job) -> None:
    job.waiting_bytes = lambda: 10 * 2**30 + 1
    job.stop.set()
    full, stopping = Health(job).unready()
    assert full.startswith("the outbox is full") and stopping.startswith("stopping")


def test_an_address_that_is_taken_is_refused(job: Job) -> None:
    registry, health = CollectorRegistry(), Health(job)
    with Endpoint(("127.0.0.1", 0), registry, health) as first, pytest.raises(RefusedStart) as refused:
        Endpoint(("127.0.0.1", first.port), registry, health)
    assert str(refused.value).startswith(f"metrics.listen: cannot listen on 127.0.0.1:{first.port} (Address")


def test_the_depth_of_an_outbox(tmp_path: Path) -> None:
    assert outbox_depth(tmp_path / "none") == Depth(0, 0, 0)
    for name, size in (
        ("a-1.json", 9),
        ("a-1-0-t.arrow", 100),
        ("a-1.begun", 7),
        ("b-1.json", 9),
        ("b-1-0-t.arrow", 1),
    ):
        (tmp_path / name).write_bytes(b"x" * size)
    hour_ago = time.time() - 3600
    os.utime(tmp_path / "b-1.json", (hour_ago, hour_ago))
    whole, of_a = outbox_depth(tmp_path), outbox_depth(tmp_path, {"a"})
    assert (whole.blocks, whole.bytes) == (2, 101) and whole.age_s >= 3600
    assert (of_a.blocks, of_a.bytes) == (1, 100) and of_a.age_s < 3600
