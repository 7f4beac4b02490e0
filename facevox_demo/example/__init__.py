"""Example data: synthetic people, their pictures and voices, and the files of a set of them.

From the bottom up: `sources` (the two portraits and their masks), `people` (who a person is and the law that
ties voice to face), `warps` (smooth displacements), `portraits` (one still picture of a person),
`expressions` (faces that they make), `pictures` (frames of a speaking person), `clips` (the speech and how
the head moves), `voice` (speech synthesis), `hq_tree` and `aihub` (the shapes of two data sets), `dataset`
(the files of a set), `face_pictures` (aligned faces, to train an embedder on).
"""
