"""Payloads on the client's side: read by an adapter, recorded, and nothing ever raised into the application."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ..adapters.events import Adapter
from ..errors import TallyflowError
from .client import Client

_log = logging.getLogger("tallyflow.client")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PayloadRecorder:
    """Records what an adapter makes of payloads. What it cannot record it logs as an error, with the reason."""

    def __init__(self, client: Client, adapter: Adapter) -> None:
        self._client, self._adapter = client, adapter
        self._said: set[str] = set()
        self.refused = 0
        """Payloads that were not recorded."""

    def record(self, payload: Mapping[str, object]) -> None:
        """Takes a payload without waiting for anything, and never raises: metering must not end what it meters."""
        try:
            for event in self._adapter.events(payload):
                for found in event.findings:
                    self._say(found.path, f"{found.path} is {found.quantity}: {found.why}")
                texts = dict(event.texts)
                if texts["source"] == self._adapter.kind_name:  # the payload names none: the client speaks
                    del texts["source"]
                time = _EPOCH + timedelta(microseconds=event.event_time_us)
                self._client.record(event.usage, time=time, id=texts.pop("id"), customer=texts.pop("customer"), **texts)
        except Exception as error:
            self.refused += 1
            _log.error("usage was not recorded: %s", error, exc_info=not isinstance(error, TallyflowError))

    def _say(self, path: str, message: str) -> None:
        """Once for each path: what no row reads stands in every payload."""
        if path not in self._said:
            self._said.add(path)
            _log.warning("%s: %s", self._adapter.kind_name, message)
