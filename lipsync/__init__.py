"""Lip-sync: how well lips and speech match, by how much they are off, and a file that is right.

The parts, in the order of the work: `settings` (config.yaml), `tracks` and `mouths` (faces of a video,
followed and cut out), `sounds` (MFCC and log-mel), `features` (both on one clock), `clip_files` (one file a
clip), `preprocessing` (many videos), `repair` (a file whose sound is shifted).
"""
