"""HQ VoxCeleb: its spectrograms and folders, the split of its people, data set, training, evaluation.

Modules: `mels` (spectrograms out of .npy and .pickle files), `tree` (people and files of the folders),
`split` (train, val and test without a person twice, and the audit), `conversion` (spectrograms to .npy, once,
for speed), `dataset` (the items of a training), `readers` (the files of people, for embedding), `training`,
`evaluation`.
"""
