"""Clips: the faces of a video, tracked and cut out, and the features of its sound, on one clock."""
