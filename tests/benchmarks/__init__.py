"""What a training step, a study and a search cost, beside what people would use instead."""
