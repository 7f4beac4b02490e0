"""Made-up people who speak and make expressions: the example data of the demo and of the tests.

Modules, from the bottom up: `sources` (the two portraits and their masks), `people` (who a person is and the
law that ties voice to face), `warps` (smooth displacements), `portraits` (one still picture of a person),
`expressions` (faces that they make), `pictures` (frames of a speaking person), `voice` (speech synthesis),
`clips` (what is said and how the head moves), `dataset` (the files of a set).

Importing this package costs nothing; its modules need OpenCV, SciPy, scikit-image, matplotlib and MediaPipe.
"""
