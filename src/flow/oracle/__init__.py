"""The slow truth in plain Python `int` and `Fraction`: what hashes and amounts are, without a kernel.

`tallyflow verify` and the tests compare the pipeline with it. It imports no kernel, shares no code with one
and none with the price book's timelines: what is obvious here is the definition.
"""
