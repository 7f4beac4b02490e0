"""MediaPipe's models in LiteRT, without mediapipe: `blazeface` finds faces, `face_mesh` their landmarks.

`litert` runs the files; `sampling` cuts the part of a picture that the detector gets, `region` the face that
`network`, the mesh, gets. The files are in `models/`; `MODELS.md` there has their sources.
"""
