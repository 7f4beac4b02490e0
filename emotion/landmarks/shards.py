"""What shards of landmarks look like on the disk: the index beside them, the points of a face."""

PROGRAM = "extract_landmarks"  # in the manifest
TABLE = "index.csv"
COLUMNS = (
    *("archive", "member", "shard", "row", "label", "person"),
    *("width", "height", "reduction", "faces"),
)
NUM_POINTS = 478
SHARD_PICTURES = 256  # in a shard, at most
