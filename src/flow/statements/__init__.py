"""Statements: what a customer is told about a period, read from the rollups only."""
