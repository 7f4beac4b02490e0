"""Expressions from FaceMesh landmarks, read straight out of ZIP archives and learnt in minutes.

Programs: `extract.py` (archives to landmarks), `train.py` (landmarks to a classifier), `predict.py`.
Modules, from the bottom up: `shards` (files and index), `reader` (a picture to its landmarks), `plan` (what
is to be read), `extraction` (archives to shards), `table` (shards to rows), `normalisation`, `network`,
`task`, `run`, `scores`, `card`.

Importing this package costs nothing; torch is needed from `network` on, TensorFlow never.
"""
