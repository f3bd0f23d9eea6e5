"""Re-rating: usage that was billed by one price book, by another; the difference becomes correction deltas."""
