"""A run that is watched: its metrics agree with the truth, and its health says when the store is away (row 5)."""

import http.client
import json
import socket
from contextlib import closing

from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.harness import Pipeline

from flow.generate import Synthetic, expected, expected_quantities, prices_yaml
from flow.metrics.depth import Depth
from flow.metrics.measures import STAGES
from flow.metrics.observer import VIEW_TABLES
from flow.metrics.status import status_of

from .http_front import FrontProcess
from .test_store_over_http import wait_until, watched

SPEC = {"events": 8_000, "customers": 50, "retimed_ppm": 0, "conflicting_ppm": 0, "bad_ppm": 5000, "seed": 7}
Samples = dict[tuple[str, str], float]
"""By name and the value of the (only) label."""


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


def get(port: int, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except ConnectionRefusedError:
            return 0, ""


def scrape(port: int) -> Samples:
    status, text = get(port, "/metrics")
    return {
        (sample.name.removeprefix("tallyflow_"), next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text if status == 200 else "")
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_a_run_can_be_watched_while_the_store_goes_and_comes_back(pipeline: Pipeline, front: FrontProcess) -> None:
    port = free_port()
    pipeline.prices = prices_yaml()
    pipeline.settings |= {
        "source": {"kind": "synthetic", **SPEC},
        "store": front.url,
        "shards": 2,
        "epoch": "200ms",
        "limits": {"batch_rows": 50},
        "metrics": {"listen": f"127.0.0.1:{port}"},
        "log": {"format": "json", "level": "info"},
    }
    process = pipeline.start("run")
    with watched(process):
        # Given a run whose blocks arrive,
        wait_until(lambda: scrape(port).get(("published_blocks_total", ""), 0) > 0, process)
        assert get(port, "/readyz") == (200, "ok\n")
        # when the store goes away,
        front.refuse()
        wait_until(lambda: get(port, "/readyz")[0] == 503, process)
        # then that is said, and no reason for a restart; events are still read to the last one, and kept.
        assert "the store is out of reach: store clickhouse://" in get(port, "/readyz")[1]
        assert get(port, "/healthz") == (200, "ok\n")
        wait_until(lambda: scrape(port)["stage_seconds_count", "publish"] > 0, process)
        # The quantities are counted by the last step, so behind the outcomes of the same events.
        quantities = sum(expected_quantities(Synthetic(**SPEC)).values())
        wait_until(lambda: sum_of(scrape(port), "quantity_total") >= quantities, process)
        assert_true(scrape(port))
        status = json.loads(pipeline.command("status", "--format=json").stdout)
        assert get(port, "/nowhere")[0] == 404
        front.accept()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert status["running"] and status["measured"]["outbox"]["blocks"] > 0
    assert status["measured"]["read"] == SPEC["events"] and "out of reach" in status["measured"]["trouble"][0]
    told = [json.loads(line) for line in err.splitlines()]
    assert [line["level"] for line in told] == ["info", "warning", "warning", "info"]
    assert told[-1]["balance"]["read"] == SPEC["events"]
    assert front.tokens()
    after = status_of(pipeline.config())
    assert (after.running, after.measured, after.outbox) == (False, None, Depth(0, 0, 0))
    assert after.why_not == f"nobody answers at 127.0.0.1:{port}"


def sum_of(samples: Samples, name: str) -> float:
    return sum(value for (found, _), value in samples.items() if found == name)


def assert_true(samples: Samples) -> None:
    """All is read, cut into blocks, and not all of it is published."""
    spec = Synthetic(**SPEC)
    counts = expected(spec)
    for outcome in ("accepted", "duplicate", "conflicting", "rejected", "late"):
        assert samples["events_total", outcome] == getattr(counts, outcome, 0), outcome
        assert samples["lineage_events", outcome] == samples["events_total", outcome]
        if outcome != "rejected":
            assert samples["dedup_verdicts_total", outcome] == getattr(counts, outcome, 0), outcome
    assert sum_of(samples, "rejected_events_total") == counts.rejected > 0
    assert samples["events_read_total", ""] == SPEC["events"]
    for meter, quantity in expected_quantities(spec).items():
        assert samples["quantity_total", meter] == quantity
    assert 0 < sum_of(samples, "unpriced_quantity_total") < sum_of(samples, "quantity_total")
    assert sum_of(samples, "dedup_fingerprints") == counts.accepted
    assert samples["dedup_memory_bytes", "shard-000"] > 0
    assert ("dedup_filter_lookups_total", "false_positive") in samples
    assert samples["watermark_timestamp_seconds", "shard-001"] > samples["view_event_timestamp_seconds", "usage_by_day"]
    assert samples["outbox_blocks", ""] > 0 < samples["outbox_bytes", ""]
    assert samples["outbox_oldest_block_age_seconds", ""] > 0
    assert samples["outbox_limit_bytes", ""] == 10 * 2**30
    assert (samples["store_reachable", ""], samples["ready", ""], samples["source_paused", ""]) == (0, 0, 0)
    assert samples["publish_retries_total", ""] > 0
    assert all(samples["stage_seconds_count", stage] > 0 for stage in STAGES)
    assert samples["epoch_seconds_count", ""] > 0
    for view in VIEW_TABLES:
        assert samples["view_published_timestamp_seconds", view] > samples["view_event_timestamp_seconds", view]
