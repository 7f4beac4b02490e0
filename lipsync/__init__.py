"""Lip-sync: how well lips and speech match, by how much they are off, and a corrected file.

The programs that users run are here, with `settings` (config.yaml) and `inference` (LipSyncInference).
Sub-packages: `clips` (the faces and the sound of a file, on one clock), `sync` (offsets, scores, verdicts),
`repair` (a file whose sound is shifted), `network` (the network and its training).
"""
