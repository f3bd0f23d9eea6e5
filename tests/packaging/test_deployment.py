"""The image, the compose file, the Kubernetes manifests, the alarms and the dashboard: checked as far as files can be.

There is no container engine here. What a build does is done without one (test_packaging.py), and what the files say is
held against the program: its options, its config, its ports, its metrics, its documents.
"""

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from pydantic import BaseModel, ConfigDict

from flow.cli.app import make_app
from flow.config import Config, KafkaSource, parse_config
from flow.metrics import collector
from flow.metrics.measures import Measures
from flow.prices.book import load_price_book
from flow.reconcile.in_job import Told, Verdict

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose"
KUBERNETES = DOCKER / "kubernetes"
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
MANIFESTS = ("service", "storage", "statefulset", "disruption", "network")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def config_of(folder: Path) -> Config:
    """The config as the container sees it: in /etc/tallyflow."""
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    return parse_config(text, "config.yaml", Path("/etc/tallyflow"), {"CLICKHOUSE_PASSWORD": "secret"})


def check_command(arguments: list[str]) -> typer.Context:
    """Parses a command line of `tallyflow`, without running it."""
    command = typer.main.get_command(make_app()).commands[arguments[0]]  # type: ignore[attr-defined]  # click's groups
    return command.make_context(arguments[0], list(arguments[1:]))


# ---- The image ----


def instructions() -> list[tuple[str, str]]:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def test_the_image_builds_what_the_packaging_tests_build() -> None:
    """The wheel of test_packaging.py: from the same files, with the same command, for a Python that we support."""
    by_kind: dict[str, list[str]] = {}
    for kind, rest in instructions():
        by_kind.setdefault(kind, []).append(rest)
    copied = {name for line in by_kind["COPY"] for name in shlex.split(line)[:-1]}
    told = (ROOT / "tests" / "packaging" / "test_packaging.py").read_text(encoding="utf-8")
    needed = re.search(r"def copy_of_the_tree.*?return to", told, re.DOTALL)
    assert needed is not None
    assert copied == {"src", *re.findall(r'"([\w.]+)"', needed[0].split("for name in")[1])}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{name}" for name in copied} <= set(ignored)
    (wheel,) = (line for line in by_kind["RUN"] if "pip wheel" in line)
    assert set(shlex.split(wheel)) - {"--no-cache-dir"} == {"pip", "wheel", "--no-deps", "--wheel-dir", "/wheels", "."}
    assert '"wheel", "--no-deps"' in told
    (version,) = re.findall(r"PYTHON=(3\.\d+)", by_kind["ARG"][0])
    assert f"Programming Language :: Python :: {version}" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_image_runs_as_nobody_special_and_knows_its_health() -> None:
    found = instructions()
    last = max(n for n, (kind, _) in enumerate(found) if kind == "FROM")
    final = dict(found[last:])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final["USER"])
    assert final["ENTRYPOINT"] == '["tallyflow"]' and final["STOPSIGNAL"] == "SIGTERM"
    assert f"http://127.0.0.1:{final['EXPOSE']}/healthz" in final["HEALTHCHECK"]
    for folder in (COMPOSE, KUBERNETES):
        metrics = config_of(folder).metrics
        assert metrics is not None and metrics.address() == ("0.0.0.0", int(final["EXPOSE"]))


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# ---- Compose ----


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Healthcheck(_Strict):
    test: list[str] = []
    interval: str = "30s"
    timeout: str = "30s"
    retries: int = 3
    disable: bool = False


class Build(_Strict):
    context: str
    dockerfile: str


class Dependency(_Strict):
    condition: str


class Service(_Strict):
    """What of the compose specification is used here, in the types that it has there."""

    image: str
    build: Build | None = None
    command: list[str] = []
    environment: dict[str, str] = {}
    volumes: list[str] = []
    ports: list[str] = []
    depends_on: dict[str, Dependency] | list[str] = {}
    healthcheck: Healthcheck = Healthcheck()
    ulimits: dict[str, dict[str, int]] = {}
    profiles: list[str] = []
    restart: str = "no"
    stop_grace_period: str = "10s"


def services() -> dict[str, Service]:
    whole = load(DOCKER / "compose.yaml")
    assert set(whole) == {"name", "x-tallyflow", "services", "volumes"}
    return {name: Service.model_validate(service) for name, service in whole["services"].items()}


def test_compose_names_only_what_is_there() -> None:
    found = services()
    named = set(load(DOCKER / "compose.yaml")["volumes"])
    used: set[str] = set()
    for name, service in found.items():
        assert re.fullmatch(r"[\w./-]+:[\w.-]+", service.image), f"{name}: an image without a version"
        for needed in service.depends_on:
            assert needed in found
            condition = service.depends_on[needed].condition if isinstance(service.depends_on, dict) else ""
            assert condition != "service_healthy" or found[needed].healthcheck.test
            assert condition in ("", "service_healthy", "service_completed_successfully")
        for volume in service.volumes:
            source, target = volume.split(":")[:2]
            assert target.startswith("/")
            if source.startswith("."):
                assert (DOCKER / source).exists(), f"{name} mounts {source}, which is not there"
            else:
                used.add(source)
        for port in service.ports:
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), f"{name}: {port} would be open to the network"
    assert used == named
    build = found["job"].build
    assert build is not None and (DOCKER / build.context).resolve() == ROOT
    assert (ROOT / build.dockerfile) == DOCKER / "Dockerfile"


def test_the_job_of_compose_fits_its_surroundings() -> None:
    found, config = services(), config_of(COMPOSE)
    job = found["job"]
    context = check_command(job.command)
    processes = context.params["processes"]
    assert str(context.params["config"]) in [volume.split(":")[1] for volume in job.volumes]
    assert processes <= config.shards and config.store.kind == "clickhouse"
    assert (config.store.host, config.store.user) == ("clickhouse", found["clickhouse"].environment["CLICKHOUSE_USER"])
    assert isinstance(config.source, KafkaSource) and config.source.brokers == ("kafka:9092",)
    assert f"--topic={config.source.topics[0]}" in found["topic"].command
    assert f"--topic {config.source.topics[0]} " in found["produce"].command[-1]
    for folder in (config.state_dir, config.ledger):
        assert folder is not None and f"tallyflow:{folder.parent}" in job.volumes
    assert config.prices == Path("/etc/tallyflow/prices.yaml")
    assert config.metrics is not None
    ports = [config.metrics.address(process)[1] for process in range(processes)]
    assert job.ports == [f"127.0.0.1:{port}:{port}" for port in ports]
    (scraped,) = load(COMPOSE / "prometheus" / "prometheus.yml")["scrape_configs"]
    assert scraped["static_configs"][0]["targets"] == [f"job:{port}" for port in ports]
    check_command(found["generate"].command)


# ---- Kubernetes ----


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_kubernetes_takes(name: str) -> None:
    kubernetes_validate.validate(load(KUBERNETES / f"{name}.yaml"), "1.37", strict=True)


def test_the_manifests_belong_together() -> None:
    kustomization = load(KUBERNETES / "kustomization.yaml")
    assert kustomization["resources"] == [f"{name}.yaml" for name in MANIFESTS]
    (generated,) = kustomization["configMapGenerator"]
    for name in generated["files"]:
        assert (KUBERNETES / name).exists()
    service, storage, stateful, disruption, network = (load(KUBERNETES / f"{name}.yaml") for name in MANIFESTS)
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    assert labels == stateful["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert labels == disruption["spec"]["selector"]["matchLabels"] == network["spec"]["podSelector"]["matchLabels"]
    inner, outer = network["spec"]["ingress"]
    assert inner["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert [port["port"] for port in inner["ports"]] == ["hosts", "process"]
    assert [port["port"] for port in outer["ports"]] == ["metrics"]
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    pod = stateful["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == storage["metadata"]["name"]
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == set(volumes)
    user = pod["securityContext"]["runAsUser"]
    assert dict(instructions())["USER"] == f"{user}:{pod['securityContext']['runAsGroup']}"


def test_the_hosts_of_kubernetes_find_each_other() -> None:
    stateful = load(KUBERNETES / "statefulset.yaml")
    service = load(KUBERNETES / "service.yaml")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    name, replicas = stateful["metadata"]["name"], stateful["spec"]["replicas"]
    context = check_command([argument.replace("$(HOST_NUMBER)", "1") for argument in container["args"]])
    addresses = context.params["addresses"].split(",")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert addresses == [f"{name}-{n}.{service['metadata']['name']}:{ports['hosts']}" for n in range(replicas)]
    assert ports["process"] == ports["hosts"] + 1  # where the one process of a host listens
    assert {"name": "hosts", "port": ports["hosts"]} in service["spec"]["ports"]
    config = config_of(KUBERNETES)
    assert config.metrics is not None and config.metrics.address()[1] == ports["metrics"]
    assert context.params["processes"] * replicas <= config.shards
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(context.params["config"]) == f"{mounts['config']}/config.yaml"
    for folder in (config.state_dir, config.ledger):
        assert folder is not None and folder.is_relative_to(mounts["data"])
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
    assert load_price_book(KUBERNETES / "prices.yaml", 10**12).meters


# ---- Alarms and the dashboard ----


class FakeReader(SimpleNamespace):
    topic, number, lag, message_time_ms = "t", 0, 1, 1


@cache
def metric_names() -> set[str]:
    """The samples that a process serves, as the code defines them."""
    registry = CollectorRegistry()
    measures = Measures(registry)
    measures.verdicts.labels("accepted")
    ProcessCollector(registry=registry)
    none = dict.fromkeys(collector.OUTCOMES, 0)
    writer = SimpleNamespace(totals=none, totals_before=none, meters={"m": [0, 0, 0]}, anomalies=Counter())
    job = SimpleNamespace(
        config=config_of(COMPOSE),
        book=SimpleNamespace(meters=frozenset(), unbilled=frozenset()),
        lineage=SimpleNamespace(id="", currency=""),
        sink=SimpleNamespace(writers=[writer]),
        directory=SimpleNamespace(outbox=Path("/nowhere")),
        publisher=SimpleNamespace(trouble="", published=SimpleNamespace(blocks=0, bytes=0, retries=0)),
        kafka_source=SimpleNamespace(readers=[FakeReader()], reachable=True, added=0),
        outbox_full=lambda: False,
        reconciler=SimpleNamespace(counts=Counter(), last=Told(0, Verdict.AGREES, 0)),
        rules=SimpleNamespace(failures=Counter(), refused=0, trouble=""),
        process=0,
        processes=1,
        read=0,
        unknown_fields=0,
    )
    asked: Any = collector.JobCollector(job, set(), lambda: True)  # type: ignore[arg-type]  # a stand-in
    metrics: list[Metric] = [*registry.collect(), *asked.collect()]
    kinds = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "info": ("_info",)}
    return {metric.name + suffix for metric in metrics for suffix in kinds.get(metric.type, ("",))}


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector of a PromQL expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for part in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
        child = getattr(node, part, None)
        if child is not None and not isinstance(child, str):
            yield from selectors(child)
    for child in getattr(node, "args", None) or ():
        yield from selectors(child)


def rules() -> list[dict[str, Any]]:
    (group,) = load(COMPOSE / "prometheus" / "alerts.yml")["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    path = COMPOSE / "grafana" / "dashboards" / "tallyflow.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def expressions() -> list[str]:
    of_panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + [expr.replace("$__rate_interval", "5m") for expr in of_panels]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_asks_for_metrics_that_there_are(expression: str) -> None:
    found = [selector.name for selector in selectors(promql_parser.parse(expression))]
    assert found and set(found) <= metric_names() | {"up"}
    assert len(found) == len(re.findall(r"\b(?:tallyflow_\w+|process_\w+|up\b)", expression))


def family(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    shown = {selector.name for text in expressions() for selector in selectors(promql_parser.parse(text))}
    ours = {name for name in metric_names() if name.startswith("tallyflow_") and name != "tallyflow_info"}
    assert {family(name) for name in ours} <= {family(name) for name in shown}


def test_every_alarm_has_a_runbook() -> None:
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", OPERATING, re.MULTILINE)}
    alarms = [rule["alert"] for rule in rules()]
    assert len(set(alarms)) == len(alarms)
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/operating.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["annotations"]["summary"]
        assert rule["alert"].lower() in headings, f"docs/operating.md has no heading ### {rule['alert']}"
    assert headings <= {alarm.lower() for alarm in alarms}


def test_the_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    uid = load(COMPOSE / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")["datasources"][0]["uid"]
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {uid}
