"""Training of face-voice models: the task, its options, accumulation, validation, the run."""
