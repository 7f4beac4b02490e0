"""HQ VoxCeleb as it lies on disks: mel spectrograms, the tree, the split.

Modules: `mels` (spectrograms out of .npy and .pickle files), `tree` (who is in the folders), `split` (train,
val and test without a person twice, and the audit), `conversion` (spectrograms to .npy, once, for speed),
`dataset` (what is trained on), `readers` (the files of people, for embedding), `training`, `evaluation`.
"""
