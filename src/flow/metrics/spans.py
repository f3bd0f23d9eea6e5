"""OpenTelemetry spans: an `epoch` of a writer, from snapshot to snapshot, and within it the `publish` of its block.

Optional: without the extra `otel` only a config that asks for spans notices. Everything else about the export (headers,
certificates, sampling, resource attributes) is told to the SDK by its own OTEL_ environment variables.
"""

from typing import Any

from .. import __version__
from ..errors import ConfigError
from ..sinks.outbox import Block

Parent = Any
"""The context in which a block is published, of a type of OpenTelemetry's; None: no spans are made."""


class Spans:
    """Makes none."""

    def epoch(self, writer: str, block: int, begun_ns: int, ended_ns: int) -> Parent:
        """A writer has ended an epoch with this block."""
        return None

    def published(self, block: Block, begun_ns: int, ended_ns: int, parent: Parent) -> None:
        """The store has taken a block."""

    def close(self) -> None:
        """Sends what waits."""


class ExportedSpans(Spans):
    """Sends them to a collector over OTLP/HTTP, in batches and from a thread of the SDK's.

    Raises ConfigError where the extra is not installed.
    """

    def __init__(self, endpoint: str, lineage: str, process: int, exporter: Any = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"traces: {error.name} is not installed; `pip install 'tallyflow[otel]'`, or take `traces` out"
            ) from error
        attributes: dict[str, str | int] = {
            "service.name": "tallyflow",
            "service.version": __version__,
            "tallyflow.lineage": lineage,
            "tallyflow.process": process,
        }
        self._provider = TracerProvider(resource=Resource.create(attributes))
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("tallyflow", __version__)
        self._context_of = trace.set_span_in_context

    def epoch(self, writer: str, block: int, begun_ns: int, ended_ns: int) -> Parent:
        names: dict[str, str | int] = {"tallyflow.writer": writer, "tallyflow.block": block}
        span = self._tracer.start_span("epoch", start_time=begun_ns, attributes=names)
        span.end(ended_ns)
        return self._context_of(span)

    def published(self, block: Block, begun_ns: int, ended_ns: int, parent: Parent) -> None:
        names: dict[str, str | int] = {
            "tallyflow.writer": block.writer,
            "tallyflow.block": block.number,
            "tallyflow.token": block.token,
            "tallyflow.bytes": block.bytes,
        }
        self._tracer.start_span("publish", parent, start_time=begun_ns, attributes=names).end(ended_ns)

    def close(self) -> None:
        self._provider.shutdown()
