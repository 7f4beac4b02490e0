"""Expressions from FaceMesh landmarks, read from ZIP archives without unpacking and learnt in minutes.

Programs: `extract.py` (archives to landmarks), `train.py` (landmarks to a classifier), `predict.py`.
Modules, from the bottom up: `shards` (files and index), `reader` (a picture to its landmarks), `plan` (the
pictures of archives), `extraction` (archives to shards), `table` (shards to rows), `normalisation`,
`network`, `task`, `card`, `run`; `predictions`; `plots`.

Importing this package costs nothing; torch is needed from `network` on, TensorFlow never.
"""
