"""A network's inputs for each face: its normalised landmarks, its blendshapes, or both."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion.landmarks.normalisation import SCALED, Integers, normalise_landmarks
from emotion.landmarks.options import BLENDSHAPES, BOTH, LANDMARKS
from emotion.landmarks.shards import NUM_POINTS
from facevox.errors import UserError
from facevox.mesh.face_landmarker import NUM_BLENDSHAPES
from facevox.mesh.kinds import FACE_LANDMARKER, FACE_MESH

_SIZES = {LANDMARKS: NUM_POINTS * 3, BLENDSHAPES: NUM_BLENDSHAPES, BOTH: NUM_POINTS * 3 + NUM_BLENDSHAPES}


@dataclass(frozen=True)
class Features:
    """The inputs of a network.

    Attributes:
        normalisation: Of the landmarks.
        inputs: One of `options.INPUTS`.
        mesh: The one that made them, of `facevox.mesh.kinds.MESHES`.

    Raises:
        UserError: The mesh has no blendshapes, and `inputs` asks for them; or `inputs` is unknown.
    """

    normalisation: str = SCALED
    inputs: str = LANDMARKS
    mesh: str = FACE_MESH

    def __post_init__(self) -> None:
        if self.inputs not in _SIZES:
            raise UserError(f"inputs {self.inputs!r}: choose of {', '.join(_SIZES)}")
        if self.inputs != LANDMARKS and self.mesh != FACE_LANDMARKER:
            raise UserError(
                f"--inputs {self.inputs}: the landmarks are of {self.mesh}, without blendshapes; extract "
                f"with --mesh {FACE_LANDMARKER}"
            )

    @property
    def size(self) -> int:
        """Numbers of one face."""
        return _SIZES[self.inputs]

    def of(
        self,
        raw_NPC: NDArray[np.float32],
        sizes_N2: Integers,
        blendshapes_NB: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        """(N, …) float32, `size` numbers for each of N faces.

        Args:
            raw_NPC: Landmarks; see `normalise_landmarks`.
            sizes_N2: Width and height of each picture, in pixels.
            blendshapes_NB: (N, 52), 0 to 1; None where `inputs` are landmarks.
        """
        if self.inputs == LANDMARKS or blendshapes_NB is None:
            return normalise_landmarks(raw_NPC, sizes_N2, self.normalisation)
        # Most are near 0, where a small movement is a small number: the root brings them apart.
        shapes: NDArray[np.float32] = np.sqrt(np.clip(blendshapes_NB, 0, 1))
        if self.inputs == BLENDSHAPES:
            return shapes
        landmarks = normalise_landmarks(raw_NPC, sizes_N2, self.normalisation)
        return np.concatenate([landmarks.reshape(len(landmarks), -1), shapes], axis=1)
