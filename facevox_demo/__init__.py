"""All that only the demo and the benchmarks need: synthetic people, small models, the report and its parts.

Example data, from the bottom up: `sources` (the two portraits and their masks), `people` (who a person is and
the law that ties voice to face), `warps` (smooth displacements), `portraits` (one still picture of a person),
`expressions` (faces that they make), `pictures` (frames of a speaking person), `voice` (speech synthesis),
`clips` (the speech and how the head moves), `hq_tree` and `aihub` (the shapes of two data sets), `dataset`
(the files of a set). Models: `embedder` (of faces), `tiny_encoders`. The report: `html_report`, and a part of
it for each job (`face_voice_report`, …). `figures`: what benchmarks print and keep.

Importing this package costs nothing; its modules need OpenCV, SciPy, scikit-image, matplotlib and MediaPipe.
"""
