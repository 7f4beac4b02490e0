"""MediaPipe's models in LiteRT, without mediapipe: `blazeface` finds faces, `litert` runs the files.

`sampling` cuts the part of a picture that a network gets. The files are in `models/`; `MODELS.md` there says
where each one comes from.
"""
