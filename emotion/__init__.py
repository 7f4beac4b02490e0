"""Five Korean facial expressions: AIHub's pictures to crops, a classifier, its server; and from landmarks.

The programs that users run are here, with `settings` (.env) and `logger_config`. The sub-packages:
`data` (pictures, annotations, crops), `classifier` (MobileNetV3Large), `scores`, `live` (faces followed and
judged), `serving` (the web server), `landmarks` (FaceMesh points and a classifier of them).

Importing this package costs nothing. Its programs are started from the repository root, as
`python emotion/preprocess.py`; no module here may have the name of an installed one, because Python
then searches this folder first.
"""
