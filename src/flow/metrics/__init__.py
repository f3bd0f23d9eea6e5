"""What a running job tells about itself: metrics, health, spans, and what `tallyflow status` shows of them."""
