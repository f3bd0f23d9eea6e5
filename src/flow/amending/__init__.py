"""What changes a bill later, made by people: corrections, and late events that are billed after all."""
