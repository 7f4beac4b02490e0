"""MediaPipe's face models in LiteRT, without mediapipe: `blazeface` finds faces, `litert` runs the files.

The files lie in `models/`; `MODELS.md` there says where each one comes from.
"""
