"""All that only the demo and the benchmarks need.

`example`: synthetic people who speak, and the files of a set of them. `report`: the demo's HTML page, with a
module for each job. Models: `embedder` (of faces), `tiny_encoders`. `lipsync_folds`: lip-sync estimators on
new speakers. `options`: of the programs, light for `--help`. `figures`: what benchmarks print and keep.

Importing this package costs nothing; its modules need OpenCV, SciPy, scikit-image, matplotlib and MediaPipe.
"""
