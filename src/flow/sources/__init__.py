"""Where events come from. Every source is a Bytewax FixedPartitionedSource that keeps its positions in the snapshot."""
