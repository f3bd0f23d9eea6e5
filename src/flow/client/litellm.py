"""A callback for LiteLLM: `litellm.callbacks = [litellm_callback(client)]`, in an application or its proxy."""

from collections.abc import Collection, Mapping
from typing import Any

from ..adapters.events import Adapter
from .adapted import PayloadRecorder
from .client import Client


def litellm_callback(
    client: Client,
    *,
    constants: Mapping[str, str] | None = None,
    paths: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
    meters: Collection[str] | None = None,
) -> Any:
    """Records each call that succeeded. The options are `Adapter`'s: say with
    `paths={"customer": "metadata.user_api_key_org_id"}` who pays, if it is not the end user or the team.

    The event has the id of LiteLLM's payload. Needs LiteLLM, which is imported here.
    """
    from litellm.integrations.custom_logger import CustomLogger

    adapter = Adapter("litellm/logging", constants or {}, paths or {}, meters=meters, defaults=defaults or {})
    recorder = PayloadRecorder(client, adapter)

    class Callback(CustomLogger):  # type: ignore[misc]  # LiteLLM is not there when types are checked
        """What LiteLLM calls, by the names that it uses."""

        def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            payload = kwargs.get("standard_logging_object")
            if payload is not None:
                recorder.record(payload)

        async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            self.log_success_event(kwargs, response_obj, start_time, end_time)

    return Callback()
