"""Spectrograms of all releases rewritten once as .npy, (mels, T) in one type: quick to load, and smaller.

Only the spectrograms are written, `<output>/<set>/mel_npy/<identity>/<file>.npy` for
`<root>/<set>/mel_spectrograms/<identity>/<file>`; faces stay where they are. `lc_pytorch.hq.tree` reads them
instead of the originals, file by file, so that a part that is not converted yet is read as before.
"""

from __future__ import annotations

import io

import numpy as np

from facevox.batch import FileItem, Outcome, Task
from facevox.errors import UserError
from facevox.files import write_bytes
from lc_pytorch.hq.mels import load_array, oriented, survey
from lc_pytorch.hq.options import ConversionConfig
from lc_pytorch.hq.tree import CONVERTED_FOLDER, Tree, iter_mels

PROGRAM = "convert_mels"
TABLE = "mels.csv"
COLUMNS = ("mel_file", "output", "key", "stored_shape", "stored_type", "frames")


class ConversionTask(Task[FileItem]):
    """Writes one spectrogram."""

    def __init__(self, config: ConversionConfig) -> None:
        self.config = config

    def process(self, item: FileItem) -> Outcome:
        """Reads `item.path` and writes `item.output`.

        Raises:
            UserError: Broken, refused, or not a spectrogram of `num_mels` bands.
        """
        array, key = load_array(item.path)
        mel = oriented(array, self.config.num_mels, item.path).astype(self.config.dtype)
        # `oriented` has checked float32: above 65504 a float16 is infinite.
        if not np.isfinite(mel).all():
            raise UserError(f"{item.path}: numbers too large for {self.config.dtype}; use --dtype float32")
        content = io.BytesIO()
        np.save(content, mel, allow_pickle=False)
        # A million small files: waiting for the disk after each would take most of the time.
        write_bytes(self.output_dir / item.output, content.getvalue(), sync=False)
        row = {
            "mel_file": item.name,
            "output": item.output,
            "key": key,
            "stored_shape": f"{array.shape[0]}x{array.shape[1]}",
            "stored_type": array.dtype.name,
            "frames": mel.shape[1],
        }
        return Outcome(rows=[row], outputs=[item.output])


def plan_conversion(tree: Tree) -> list[FileItem]:
    """An item for every spectrogram of a tree that was scanned without converted ones.

    Raises:
        UserError: There are none.
    """
    items = []
    for set_name, person, path in iter_mels(tree):
        name = f"{set_name}/{person.name}/{path.name}"
        output = f"{set_name}/{CONVERTED_FOLDER}/{person.name}/{path.name}.npy"
        items.append(FileItem(name, str(path), output))
    if not items:
        raise UserError(f"{tree.root}: no spectrograms to convert")
    return items


def find_num_mels(tree: Tree) -> tuple[int, list[str]]:
    """Bands of the spectrograms of a tree, and lines about a sample of them.

    Raises:
        UserError: Nothing can be read, or the number of bands is ambiguous.
    """
    files = [person.mels[0] for people in tree.people.values() for person in people.values() if person.mels]
    sample = survey(files)
    return sample.num_mels, sample.lines()
