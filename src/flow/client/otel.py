"""A span processor for OpenTelemetry: `provider.add_span_processor(UsageSpanProcessor(client))`.

It has the methods that the SDK calls, and needs nothing of OpenTelemetry itself.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ..adapters.events import Adapter
from .adapted import PayloadRecorder
from .client import Client


class UsageSpanProcessor:
    """Records the usage of each ended span that has `gen_ai.usage` attributes and is the call of a model.

    The event's id is that of trace and span. The customer is the attribute `tallyflow.customer`, `enduser.id` or
    `user.id`, or what the options, which are `Adapter`'s, say.
    """

    def __init__(
        self,
        client: Client,
        *,
        constants: Mapping[str, str] | None = None,
        paths: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
        meters: Collection[str] | None = None,
    ) -> None:
        adapter = Adapter("opentelemetry/spans", constants or {}, paths or {}, meters=meters, defaults=defaults or {})
        self._client, self._recorder = client, PayloadRecorder(client, adapter)

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """A span says what it used when it ends."""

    def _on_ending(self, span: Any) -> None:
        """The SDK calls this too, while the span can still be changed."""

    def on_end(self, span: Any) -> None:
        """Takes an ended span (the SDK's ReadableSpan); never waits, never raises."""
        attributes = span.attributes or {}
        if any(name.startswith("gen_ai.usage.") for name in attributes):
            context, resource = span.get_span_context(), span.resource
            self._recorder.record(
                {
                    "name": span.name,
                    "context": {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"},
                    "start_time": span.start_time,
                    "attributes": dict(attributes),
                    "resource": {"attributes": dict(resource.attributes) if resource else {}},
                }
            )

    def shutdown(self) -> None:
        """The client lives on: it is for whoever made it to close."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Waits for delivery; whether all is delivered."""
        return self._client.flush(timeout_millis / 1000)
