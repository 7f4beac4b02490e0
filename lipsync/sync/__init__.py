"""Offsets: similarities by lag, the offset and its interval, verdicts, live scores, batches."""
