"""The form of shards of landmarks on the disk: index, columns, points of a face."""

PROGRAM = "extract_landmarks"  # in the manifest
TABLE = "index.csv"
COLUMNS = (
    *("archive", "member", "shard", "row", "label", "person"),
    *("width", "height", "reduction", "faces"),
)
NUM_POINTS = 478
BLENDSHAPES_SUFFIX = ".blendshapes.npy"  # beside the shard of the same name, (n, 52) float32


def blendshapes_of(shard: str) -> str:
    """The name of the blendshapes' file that belongs to a shard of the newer mesh."""
    return shard.removesuffix(".npy") + BLENDSHAPES_SUFFIX


# Largest number in a shard: 1.5 MB of landmarks, and 5 to 15 s of work on a core, which is all that a killed
# run has to do again.
SHARD_PICTURES = 256
