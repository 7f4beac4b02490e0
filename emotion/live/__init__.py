"""Faces followed and judged picture by picture: in the server, in a window, in a file.

`analysis` (the model), `face_tracks` and `annotation` serve all; `picture_task`, `video_file` and `camera`
are the three modes of emotion/run_model.py, with `viewer` and `face_log`.
"""
