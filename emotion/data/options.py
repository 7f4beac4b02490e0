"""The options of preprocessing. Importing this costs neither OpenCV nor MediaPipe: `--help` is quick."""

from dataclasses import dataclass
from pathlib import Path

from facevox.options import Options, number, option


@dataclass(frozen=True, kw_only=True)
class CropConfig(Options):
    """Configuration of the crops; checks itself.

    Attributes:
        class_names: Labels of the pictures that become crops, in English.
        train_dir, val_dir: Two folders of one parent, which holds the table and the manifest.
        img_size: Side of a crop, in pixels.
        crop_margin: Around the face box, on each side, as a share of the box.
        seed: Of the split.
    """

    class_names: tuple[str, ...]
    train_dir: Path
    val_dir: Path
    img_size: int
    crop_margin: float
    val_share: float = option(
        0.2, number(0, 1, is_above=True, is_below=True), "share of the people that go to validation"
    )
    seed: int

    def contradictions(self) -> list[str]:
        """A fault where the folders have no common parent."""
        if self.train_dir.parent == self.val_dir.parent:
            return []
        return [
            f"DATA_DIR_TRAIN {self.train_dir} and DATA_DIR_VAL {self.val_dir}: two folders of one parent are "
            "expected, which holds their table and manifest"
        ]

    @property
    def output_dir(self) -> Path:
        """The parent of the two folders."""
        return self.train_dir.parent

    def settings(self) -> dict[str, object]:
        """The values that change the crops."""
        return {
            "class_names": list(self.class_names),
            "train_dir": self.train_dir.name,
            "val_dir": self.val_dir.name,
            "img_size": self.img_size,
            "crop_margin": self.crop_margin,
            "val_share": self.val_share,
            "seed": self.seed,
        }
