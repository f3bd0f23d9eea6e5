"""The Kafka source, on real brokers."""
