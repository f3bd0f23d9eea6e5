"""Usage that a person should look at: flagged in the stream, never held up. docs/anomalies.md"""
