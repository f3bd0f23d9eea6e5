"""Prices: read from YAML, checked whole, asked for the rate in force. No store, no clock."""
