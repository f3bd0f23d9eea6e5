"""OpenTelemetry spans out of a line: OTLP as JSON (what the collector's file exporter writes), or one span as the
Python SDK's `to_json` gives it."""

from collections.abc import Iterator, Mapping

NOT_CALLS = frozenset(("create_agent", "invoke_agent", "invoke_workflow", "execute_tool"))
"""Operations whose spans enclose the calls of models: usage that they tell is that of the spans within, once more."""


def spans(line: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """The spans of a line that tell the usage of one call: {id, time, name, attributes, resource}."""
    for span in _otlp(line) if "resourceSpans" in line else [_sdk(line)]:
        attributes = span["attributes"]
        assert isinstance(attributes, dict)  # both of the two make it so
        tells = any(name.startswith("gen_ai.usage.") for name in attributes)
        if tells and attributes.get("gen_ai.operation.name") not in NOT_CALLS:
            yield span


def _otlp(line: Mapping[str, object]) -> Iterator[dict[str, object]]:
    for group in _objects(line.get("resourceSpans")):
        resource = group.get("resource")
        of_all = _attributes(resource.get("attributes")) if isinstance(resource, Mapping) else {}
        for scope in _objects(group.get("scopeSpans")):
            for span in _objects(scope.get("spans")):
                yield {
                    "id": f"{span.get('traceId', '')}-{span.get('spanId', '')}",
                    "time": span.get("startTimeUnixNano"),
                    "name": span.get("name"),
                    "attributes": _attributes(span.get("attributes")),
                    "resource": of_all,
                }


def _sdk(line: Mapping[str, object]) -> dict[str, object]:
    context, attributes, resource = (line.get(name) for name in ("context", "attributes", "resource"))
    of_all = resource.get("attributes") if isinstance(resource, Mapping) else None
    ids = [str(context.get(name, "")) for name in ("trace_id", "span_id")] if isinstance(context, Mapping) else []
    return {
        "id": "-".join(name.removeprefix("0x") for name in ids) or None,
        "time": line.get("start_time"),
        "name": line.get("name"),
        "attributes": dict(attributes) if isinstance(attributes, Mapping) else {},
        "resource": dict(of_all) if isinstance(of_all, Mapping) else {},
    }


def _objects(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _attributes(pairs: object) -> dict[str, object]:
    """{key: value} of OTLP's pairs; an integer of theirs is a string of digits, and stays one."""
    found: dict[str, object] = {}
    for pair in _objects(pairs):
        value = pair.get("value")
        if isinstance(value, Mapping) and len(value) == 1:
            found[str(pair.get("key"))] = next(iter(value.values()))
    return found
