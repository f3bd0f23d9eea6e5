"""The steps of the dataflow, decode, route, deduplicate, rate, combine. Bytewax logics are thin."""
