"""The store: the only room that speaks to ClickHouse. client.py has errors and settings, ddl/ the tables."""

from .client import StoreClient, StoreUnavailable, connect
from .migrate import check_schema, migrate
from .publish import insert_arrow_file

__all__ = ["StoreClient", "StoreUnavailable", "check_schema", "connect", "insert_arrow_file", "migrate"]
