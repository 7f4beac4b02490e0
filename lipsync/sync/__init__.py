"""What finds offsets: similarities by lag, the offset and its interval, verdicts, live sources, batches."""
