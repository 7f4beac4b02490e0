"""Five Korean facial emotions: AIHub's pictures, the classifier, its server, and the landmark programs.

Importing this package costs nothing. Its programs are started from the repository root, as
`python emotion/preprocess.py`; no module here may bear the name of an installed one, because Python then
looks into this folder first.
"""
