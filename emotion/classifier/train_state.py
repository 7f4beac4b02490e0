"""Everything that a stopped run needs to resume, in one file that holds numbers and text only.

`state.npz`: a member `about` with JSON (format, position, counters, history), and an array for each weight
("network:<path>"), average ("average:<path>"), optimizer variable ("optimizer:<path>") and random generator.
It is written whole or not at all, and read without pickle.
"""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facevox.archives import check_members
from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault
from facevox.files import write_arrays

if TYPE_CHECKING:
    import keras

FORMAT = 1
STATE_FILE, BEST_FILE = "state.npz", "best.npz"
Arrays = dict[str, "NDArray[Any]"]


@dataclass
class TrainState:
    """Position and contents of a run.

    Attributes:
        about: JSON-able values: settings, position, counters, history.
        arrays: "<group>:<path>" -> array.
    """

    about: dict[str, Any]
    arrays: Arrays = field(default_factory=dict)

    def group(self, name: str) -> Arrays:
        """The arrays of a group, by path."""
        return {
            key.split(":", 1)[1]: value for key, value in self.arrays.items() if key.startswith(name + ":")
        }

    def add(self, name: str, arrays: Arrays) -> None:
        """Adds the arrays of a group."""
        self.arrays.update({f"{name}:{path}": value for path, value in arrays.items()})


def assign_all(variables: "list[keras.Variable]", arrays: Arrays, what: str) -> None:
    """Puts arrays into variables.

    Raises:
        UserError: Names or shapes differ: the file is another network's.
    """
    by_path = {variable.path: variable for variable in variables}
    assert len(by_path) == len(variables)  # paths are unique within a network and within an optimizer
    differing = sorted(by_path.keys() ^ arrays.keys())
    differing += [p for p in by_path.keys() & arrays.keys() if tuple(by_path[p].shape) != arrays[p].shape]
    if differing:
        raise UserError(f"{what}: not of this network ({differing[0]} and {len(differing) - 1} more differ)")
    for path, variable in by_path.items():
        variable.assign(arrays[path])


def save_state(path: Path, state: TrainState) -> None:
    """Writes the file, whole."""
    about = json.dumps({"format": FORMAT, **state.about}, ensure_ascii=False, allow_nan=False)
    text = np.frombuffer(about.encode(), np.uint8)
    write_arrays(path, {"about": text, **state.arrays})


def load_state(path: Path) -> TrainState | None:
    """The state in a file of `save_state`, or None where there is no such file.

    Raises:
        UserError: It is another file, broken, or of another format.
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # `save_state` stores its arrays as they are
            check_members(archive.infolist(), path.stat().st_size)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop("about").tobytes())
        if not isinstance(about, dict):
            raise ValueError("its description is no table")
    except Exception as error:  # of damaged archives NumPy, zipfile and zlib raise anything
        reason = file_fault(path, "training state") or one_line(error, 120)
        raise UserError(
            f"{path}: not a state of emotion/main.py ({reason}); start again with --overwrite"
        ) from None
    if about.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {about.get('format')}; this version reads {FORMAT}; --overwrite starts again"
        )
    return TrainState(about, arrays)
