"""Every call through LiteLLM is recorded; `python litellm_callback.py file:///tmp/events /tmp/spool`."""

import sys

import litellm

from flow.client import Client
from flow.client.litellm import litellm_callback

# No `with`: LiteLLM logs in the background, and at exit the client closes after it.
client = Client(to=sys.argv[1], spool=sys.argv[2], source="litellm")
litellm.callbacks = [litellm_callback(client, defaults={"customer": "acme"})]

question = [{"role": "user", "content": "Say hello."}]
litellm.completion(model="gpt-4o-mini", messages=question, mock_response="Hello!")
