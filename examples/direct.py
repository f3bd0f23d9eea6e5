"""An application records what it used; `python direct.py kafka://localhost:9092/usage /var/spool/tallyflow`."""

import sys

from flow.client import Client

with Client(to=sys.argv[1], spool=sys.argv[2], source="gateway/eu-1") as client:
    client.record(
        {"input_tokens": 900, "cached_input_tokens": 300, "output_tokens": 95},
        id="resp_7f3c",
        customer="acme",
        model="gpt-4o-mini",
    )
