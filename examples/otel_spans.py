"""Every span that tells usage is recorded; `python otel_spans.py file:///tmp/events /tmp/spool`."""

import sys

from opentelemetry.sdk.trace import TracerProvider

from flow.client import Client
from flow.client.otel import UsageSpanProcessor

with Client(to=sys.argv[1], spool=sys.argv[2], source="assistant") as client:
    provider = TracerProvider()
    provider.add_span_processor(UsageSpanProcessor(client))
    with provider.get_tracer("assistant").start_as_current_span("chat gpt-4o-mini") as span:
        span.set_attributes({"gen_ai.usage.input_tokens": 900, "gen_ai.usage.output_tokens": 95})
        span.set_attributes({"gen_ai.request.model": "gpt-4o-mini", "tallyflow.customer": "acme"})
