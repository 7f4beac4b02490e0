"""Faces out of videos, one group per person, face-voice pairs, contrastive training, evaluation; HQ too."""

import os

# The hub's client would report its use, once a process, even where only the cache is asked.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
