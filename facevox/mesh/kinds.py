"""The two meshes, and the mark by which saved landmarks and models say which one made them.

Both have 478 points in the same places of a face, but not the same numbers: a model for one answers wrongly
on the other, so nothing that holds both is ever made.
"""

from collections.abc import Mapping
from pathlib import Path

from facevox.errors import UserError
from facevox.mesh.face_landmarker import MIN_CONFIDENCE as LANDMARKER_CONFIDENCE
from facevox.mesh.face_mesh import MIN_CONFIDENCE

# Of `facevox.mesh.face_mesh` and of mediapipe up to 0.10.21: one network, and one mesh.
FACE_MESH = "face_mesh"
# Of `facevox.mesh.face_landmarker`: the newer network of 256 pixels.
FACE_LANDMARKER = "face_landmarker"
MESHES = (FACE_MESH, FACE_LANDMARKER)


def marked_mesh(saved: Mapping[str, object], path: str | Path) -> str:
    """The mesh by the mark among the saved values of a file; without one it is FaceMesh.

    Raises:
        UserError: A mesh that this version does not know.
    """
    mesh = str(saved.get("mesh", FACE_MESH))
    if mesh not in MESHES:
        raise UserError(f"{path}: of the mesh {mesh}; this version knows {' and '.join(MESHES)}")
    return mesh


def require_face_mesh(saved: Mapping[str, object], path: str | Path) -> None:
    """Checks that a file's values are of FaceMesh, by the mark among them.

    Raises:
        UserError: They are of another mesh.
    """
    mesh = marked_mesh(saved, path)
    if mesh != FACE_MESH:
        raise UserError(f"{path}: made with the mesh {mesh}; this program works with {FACE_MESH}")


def describe_mesh(mesh: str) -> str:
    """The mesh and its detector's threshold, for people."""
    if mesh == FACE_LANDMARKER:
        return f"FaceLandmarker, min_confidence {LANDMARKER_CONFIDENCE}"
    return f"FaceMesh, min_confidence {MIN_CONFIDENCE}"
