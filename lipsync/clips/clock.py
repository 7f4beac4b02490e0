"""The clock that lips and sound share.

Frame k shows the moment k / 25 s of presentation time, whatever the rate of the file. Row j of the sound's
features is centred on j / 100 s. So four rows belong to a frame, and row 4k is centred on its moment.
`lipsync.sync.offset` has the sign of an offset between the two.
"""

FRAME_HZ = 25.0  # all features of faces are sampled at this rate
ROW_HZ = 100.0  # of the sound's features
ROWS_PER_FRAME = round(ROW_HZ / FRAME_HZ)
# Number of this clock in files: 1, before, showed pictures by the grid of the file, up to 40 ms late.
CLOCK = 2
