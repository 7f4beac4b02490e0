"""The small model that comes with the package: its file, its card, and what runs it without torch."""
