"""Five Korean facial expressions: AIHub's pictures to crops, a classifier, its server; and from landmarks.

On the ground floor lie the programs that users run, with `settings` (.env) and `logger_config`. The rooms:
`data` (pictures, annotations, crops), `classifier` (MobileNetV3Large), `scores`, `live` (faces followed and
judged), `serving` (the web server), `landmarks` (FaceMesh points and a classifier of them).

Importing this package costs nothing. Its programs are started from the repository root, as
`python emotion/preprocess.py`; no module on the ground floor may bear the name of an installed one, because
Python then looks into this folder first.
"""
