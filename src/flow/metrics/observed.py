"""The observability of one process, put together as its config says."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..job import Job


@contextmanager
def observed(job: Job) -> Iterator[None]:
    """While inside, the job of this process can be watched; entered before its dataflow is built.

    Each process of a cluster serves a port of its own. Nobody has to add histograms up then, a process that has died is
    seen as one that does not answer, and Prometheus sums over processes as it does over anything.
    Raises ConfigError, RefusedStart.
    """
    config = job.config
    if config.metrics is None and config.traces is None:
        yield
        return

    # Loaded by who looks: the libraries behind them take longer than a small run.
    from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

    from .collector import JobCollector
    from .health import Health
    from .measures import Measures
    from .observer import Observer
    from .server import Endpoint
    from .spans import ExportedSpans, Spans

    with ExitStack() as ends:
        spans = Spans()
        if config.traces is not None:
            spans = ExportedSpans(config.traces.endpoint, job.lineage.id, job.process)
            ends.callback(spans.close)
        registry = CollectorRegistry()
        observer = Observer(job, Measures(registry), spans)
        observer.watch()
        if config.metrics is not None:
            health = Health(job)
            ProcessCollector(registry=registry)
            GCCollector(registry)
            collector = JobCollector(job, observer.writers, health.ready)
            registry.register(collector)
            job.publisher.look = collector.look
            ends.enter_context(Endpoint(config.metrics.address(job.process), registry, health))
        yield
