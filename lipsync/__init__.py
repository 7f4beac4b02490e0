"""Lip-sync: how well lips and speech match, by how much they are off, and a file that is right.

The parts, in the order of the work: `settings` (config.yaml), `tracks` and `mouths` (faces of a video,
followed and cut out), `sounds` (MFCC and log-mel), `features` (both on one clock), `clip_files` (one file a
clip), `preprocessing` (many videos), `repair` (a file whose sound is shifted).

What finds offsets: `estimators` (mouth by loudness, a ridge map, a network), `offset` (similarities to
an offset with its interval), `calibration` (to a probability), `scoring`, `verdicts`, `answers`; `inference`
(LipSyncInference), `correction` (a repaired file, measured again), `plots`, `pair_batch` (many pairs),
`streaming` and `realtime` (while it plays).

What learns: `takes`, `windows`, `augmentation` (clips to segments), `model`, `losses`, `training`,
`training_run` and `train` (settings to a model), `evaluation` and `cross_validation` (accuracy by
window length), `model_card`.
"""
