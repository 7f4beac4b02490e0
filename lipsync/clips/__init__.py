"""Clips: the faces of a video followed and cut out, and its sound's features, on one clock."""
