"""Lip-sync: how well lips and speech match, by how much they are off, and a file that is right.

On the ground floor lie the programs that users run, with `settings` (config.yaml) and `inference`
(LipSyncInference). The rooms: `clips` (the faces and the sound of a file, on one clock), `sync` (offsets,
scores, verdicts), `repair` (a file whose sound is shifted), `network` (what learns).
"""
