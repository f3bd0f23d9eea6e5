"""Whether a process is well: `/healthz` says if only a restart would help, `/readyz` if results get through.

A store that is away is no reason to restart: the job goes on, and its outbox fills. It is a reason to be told.
"""

from ..job import Job


class Health:
    """Of the process that runs one job."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def dead(self) -> list[str]:
        """What is beyond repair in this process, a line each; nothing: it lives."""
        try:
            self._job.publisher.check()
        except Exception as error:  # whatever it was, it ends the job as soon as a writer meets it
            return [f"the publisher has stopped: {error}"]
        return []

    def unready(self) -> list[str]:
        """Why results do not get through, a line each; nothing: they do."""
        job, found = self._job, self.dead()
        if job.publisher.trouble:
            found.append(f"the store is out of reach: {job.publisher.trouble}")
        if job.outbox_full():
            found.append("the outbox is full: sources pause until the store takes blocks")
        if job.kafka_source is not None and not job.kafka_source.reachable:
            found.append("the Kafka brokers do not answer")
        if job.stop.is_set():
            found.append("stopping: what was read is being published")
        return found

    def ready(self) -> bool:
        return not self.unready()
