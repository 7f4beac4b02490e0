"""Faces of videos grouped by person, face-voice pairs, contrastive training and evaluation; HQ too."""

import os

# The hub's client reports its use once per process, even where only the cache is read.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
