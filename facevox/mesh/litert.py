"""The one place that knows the interpreter of `.tflite` files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODELS_DIR = Path(__file__).parent / "models"


def model_error(file: Path, error: Exception) -> UserError:
    """The error of a model that cannot be read, with what its file is instead, and what to do."""
    reason = file_fault(file, "model") or f"cannot be read ({one_line(error)})"
    if file.parent == MODELS_DIR:
        reason = f"{reason}; the installation of facevox is damaged: install it again"
    return UserError(f"{file}: {reason}")


class LiteRtModel:
    """A `.tflite` file, loaded and ready to run; neither thread-safe nor usable in a forked child.

    Args:
        path: The file; a bare name is one of facevox's own models.
        threads: Processor threads it may use.

    Raises:
        UserError: Not such a file, damaged, or it has operations that LiteRT does not know.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter: Any = Interpreter(str(MODELS_DIR / path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise model_error(MODELS_DIR / path, error) from None
        self._inputs = {t["name"]: t["index"] for t in self._interpreter.get_input_details()}
        self._outputs = {t["name"]: t["index"] for t in self._interpreter.get_output_details()}

    def __call__(self, *inputs: "NDArray[np.float32]") -> "dict[str, NDArray[np.float32]]":
        """The outputs by name, as arrays of the caller's own; `inputs` in the order of the file."""
        for index, values in zip(self._inputs.values(), inputs, strict=True):
            self._interpreter.set_tensor(index, values)
        self.run()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}

    def run(self) -> None:
        """Runs the network on what was written into the memory of its inputs; `memory` has the outputs."""
        self._interpreter.invoke()

    def memory(self, name: str) -> "NDArray[np.float32]":
        """The interpreter's memory of an input or output, which saves copies.

        No variable may refer to it when the network runs: LiteRT refuses that with a RuntimeError.
        """
        index = self._inputs[name] if name in self._inputs else self._outputs[name]
        values: NDArray[np.float32] = self._interpreter.tensor(index)()
        return values
