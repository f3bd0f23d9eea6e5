"""The kafka part of a config."""

from pathlib import Path

import pytest

from flow.config import KAFKA_REFUSED, Config, KafkaSource, parse_config
from flow.errors import ConfigError


def read(source: str, environment: dict[str, str] | None = None) -> Config:
    text = f"prices: p\nstore: chdb:s\nstate_dir: t\nsource:\n{source}"
    return parse_config(text, "c.yaml", Path("/etc/tallyflow"), environment or {})


def kafka(source: str, environment: dict[str, str] | None = None) -> KafkaSource:
    found = read(source, environment).source
    assert isinstance(found, KafkaSource)
    return found


def test_least():
    found = kafka("  kind: kafka\n  brokers: kafka-1:9092\n  topic: events\n")
    assert found.brokers == ("kafka-1:9092",)
    assert found.topics == ("events",)
    assert (found.group, found.start, found.until, found.options) == (None, "beginning", None, {})


def test_most():
    found = kafka(
        "  kind: kafka\n  brokers: [kafka-1, '[::1]:9093']\n  topic: [a, b.c_d-e]\n  group: billing\n"
        "  start: end\n  until: end\n"
        "  options:\n    security.protocol: SASL_SSL\n    sasl.password: '${PASSWORD}'\n"
        "    socket.keepalive.enable: true\n    fetch.min.bytes: 1_000\n",
        {"PASSWORD": "s3cret"},
    )
    assert found.brokers == ("kafka-1", "[::1]:9093")
    assert found.topics == ("a", "b.c_d-e")
    assert (found.group, found.start, found.until) == ("billing", "end", "end")
    assert {name: value.get_secret_value() for name, value in found.options.items()} == {
        "security.protocol": "SASL_SSL",
        "sasl.password": "s3cret",
        "socket.keepalive.enable": "true",
        "fetch.min.bytes": "1000",
    }
    assert "s3cret" not in repr(found)


def test_brokers_in_one_text():
    assert kafka("  {kind: kafka, brokers: 'a:1, b:2,c', topic: t}\n").brokers == ("a:1", "b:2", "c")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("topic: t", "c.yaml:5: source.brokers: is missing"),
        ("brokers: a", "c.yaml:5: source.topic: is missing"),
        ("brokers: [], topic: t", "c.yaml:5: source.brokers: a list names no broker"),
        (
            "brokers: 'a:b', topic: t",
            "c.yaml:5: source.brokers: 'a:b' holds a broker that is not host:port; write kafka-",
        ),
        ("brokers: 'a:0', topic: t", "c.yaml:5: source.brokers: 'a:0' holds a broker that is not host:port"),
        ("brokers: 'a:65536', topic: t", "c.yaml:5: source.brokers: 'a:65536' holds a broker that is not host:port"),
        ("brokers: 'a,,b', topic: t", "c.yaml:5: source.brokers: 'a,,b' holds a broker that is empty or not text"),
        ("brokers: a, topic: [t, t]", "c.yaml:5: source.topic: a list names a topic twice"),
        ("brokers: a, topic: 't t'", "c.yaml:5: source.topic: 't t' holds a topic that is not 1 to 249 letters"),
        ("brokers: a, topic: ..", "c.yaml:5: source.topic: '..' holds a topic that is not"),
        ("brokers: a, topic: t, start: now", "c.yaml:5: source.start: 'now' is none of 'beginning' or 'end'"),
        ("brokers: a, topic: t, until: 5", "c.yaml:5: source.until: '5' is none of 'end'"),
        ("brokers: a, topic: t, group: ''", "c.yaml:5: source.group: '' is empty"),
        ("brokers: a, topic: t, topics: u", "c.yaml:5: source.topics: unknown key; did you mean topic?"),
        ("brokers: a, topic: t, options: {a: [1]}", "c.yaml:5: source.options.a: a list is neither text, a number nor"),
        ("brokers: a, topic: t, options: {a: '${B}'}", "c.yaml:5: source.options.a: environment variable B is not set"),
    ],
)
def test_mistakes(given: str, message: str):
    with pytest.raises(ConfigError) as caught:
        read(f"  {{kind: kafka, {given}}}\n")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("option", KAFKA_REFUSED)
def test_options_that_would_break_exactness(option: str):
    with pytest.raises(ConfigError) as caught:
        read(f"  kind: kafka\n  brokers: a\n  topic: t\n  options:\n    {option}: x\n")
    assert caught.value.errors == [f"c.yaml:9: source.options.{option}: cannot be set; {KAFKA_REFUSED[option]}"]
