"""Measures the example people: are they faces to detectors, people to an embedder, speakers to a lip reader?

    python benchmarks/example_data.py                       # makes 120 people x 2 clips of 2 s, then measures
    python benchmarks/example_data.py --set_dir runs/example  # measures an existing set
    python benchmarks/example_data.py --json figures.json

Prints a table of figure, bar and verdict. MobileFaceNet is read from $FACEVOX_TEST_DATA (the folder of real
sample data); without it and without TensorFlow (MTCNN) those figures are left out, with a message.

Exit codes: 0 every bar is met; 1 one is missed; 2 bad usage or bad input.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.faces import align_five_points, five_points, mouth_opening
from facevox.mesh.face_mesh import FaceMesh
from facevox_demo.figures import Figure, print_figures, write_figures

REPOSITORY = Path(__file__).resolve().parent.parent
# Landmark pairs that measure each law-bearing trait, as a share of the width of the face (234 to 454).
TRAITS = {
    "face_length": ((168, 152),),
    "jaw_width": ((172, 397),),
    "eye_distance": ((33, 263), (133, 362)),
}
# Traits that also show as a cast: which of a and b of the cheeks' colour in CIE Lab.
CAST_CHANNELS = {"face_length": 1, "jaw_width": 2}
FACE_WIDTH = (234, 454)
CHEEKS = (50, 280)
MTCNN_PROGRAM = """
import json, sys
import cv2
from mtcnn import MTCNN
detector = MTCNN()
pictures = (cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in sys.argv[1:])
has_face = [len(detector.detect_faces(picture)) > 0 for picture in pictures]
print("has_face", json.dumps(has_face))
"""


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/example_data.py --set_dir runs/example")
    parser.add_argument("--set_dir", type=Path, help="an existing set (default: one is made and timed)")
    parser.add_argument("--num_people", type=cli.positive_int, default=120, help="people of the set to make")
    parser.add_argument(
        "--measured_people", type=cli.positive_int, default=40, help="people whose clips are read"
    )
    parser.add_argument(
        "--step", type=cli.positive_int, default=10, help="detectors see one frame in this many"
    )
    parser.add_argument(
        "--expression_people", type=cli.positive_int, default=60, help="half train, half test"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures there (default: none)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit code."""
    args = get_args_parser().parse_args(argv)
    figures = []
    with tempfile.TemporaryDirectory(prefix="facevox-") as folder:
        set_dir = args.set_dir or Path(folder) / "set"
        if args.set_dir is None:
            figures.append(
                Figure(
                    name="time to make the set",
                    value=make_set(set_dir, args.num_people),
                    unit="s",
                    bar=120,
                    is_comparable=False,
                    is_better_higher=False,
                )
            )
        clips = read_clips(set_dir, args.measured_people)
        figures += speech_figures(clips) + trait_figures(clips) + law_figures()
        frames = [frame for clip in clips for frame in clip.frames[:: args.step]]
        figures += detector_figures(frames, Path(folder))
        figures += embedding_figures(clips, args.step)
        figures += expression_figures(args.expression_people)
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


def make_set(set_dir: Path, num_people: int) -> float:
    """Makes a set with the program's defaults and returns the seconds that it took."""
    program = REPOSITORY / "scripts" / "demo" / "make_example_data.py"
    start_s = time.monotonic()
    command = [sys.executable, str(program), "--output_dir", str(set_dir), "--num_people", str(num_people)]
    subprocess.run(command, check=True)
    return time.monotonic() - start_s


@dataclass(frozen=True)
class ReadClip:
    """One clip as decoded from its mp4: frames (RGB), landmarks (None where none), loudness, metadata."""

    person: dict[str, Any]
    clip: dict[str, Any]
    frames: list[Any]
    landmarks: list[Any]
    loudness: NDArray[np.float64]  # RMS of the sound in the frame's time, +- half a frame


def read_clips(set_dir: Path, num_people: int) -> list[ReadClip]:
    """Decodes the clips of the first people and finds their landmarks.

    Raises:
        UserError: The folder holds no example set.
    """
    from facevox.media import iter_frames, read_audio

    meta_file = set_dir / "metadata.json"
    if not meta_file.is_file():
        raise UserError(f"{meta_file}: not there; make a set with scripts/demo/make_example_data.py")
    meta = json.loads(meta_file.read_text(encoding="utf-8"))
    half = round(16_000 / meta["fps"] / 2)
    clips = []
    with FaceMesh() as mesh:
        for person in meta["people"][:num_people]:
            for clip in person["clips"]:
                video = set_dir / "videos" / person["name"] / f"{clip['clip']}.mp4"
                sound = read_audio(video)
                frames = list(iter_frames(video))
                loudness = []
                for frame in frames:
                    middle = round(frame.time_s * 16_000)
                    loudness.append(np.sqrt(np.mean(sound[max(middle - half, 0) : middle + half] ** 2)))
                pictures = [frame.image for frame in frames]
                faces = [mesh.find(picture) for picture in pictures]
                clips.append(
                    ReadClip(person, clip, pictures, [f[0] if f else None for f in faces], np.array(loudness))
                )
    return clips


def speech_figures(clips: list[ReadClip]) -> list[Figure]:
    """Landmarks found, mouth against loudness, and the lag between them."""
    correlations, commands, lags, face_shares = [], [], [], []
    for clip in clips:
        has_face = np.array([p is not None for p in clip.landmarks])
        face_shares.append(has_face.mean())
        if not has_face.all():
            continue
        opening = np.array([mouth_opening(p) for p in clip.landmarks])
        correlations.append(np.corrcoef(opening, clip.loudness)[0, 1])
        commands.append(np.corrcoef(opening, clip.clip["opening"])[0, 1])
        core = slice(5, len(opening) - 5)
        by_lag = {
            lag: np.corrcoef(opening[core.start + lag : core.stop + lag], clip.loudness[core])[0, 1]
            for lag in range(-5, 6)
        }
        lags.append(max(by_lag, key=lambda lag: by_lag[lag]))
    return [
        Figure(name="FaceMesh: share of frames with 478 points", value=float(np.mean(face_shares)), bar=0.95),
        Figure(
            name="mouth opening x loudness, median correlation", value=float(np.median(correlations)), bar=0.5
        ),
        Figure(name="mouth opening x loudness, lowest clip", value=float(np.min(correlations))),
        Figure(name="mouth opening x command, median correlation", value=float(np.median(commands)), bar=0.9),
        Figure(
            name="mouth x loudness best at lag 0, share of clips",
            value=float(np.mean(np.array(lags) == 0)),
            bar=0.9,
        ),
    ]


def measured_traits(landmarks: NDArray[np.floating[Any]], picture: NDArray[np.uint8]) -> dict[str, float]:
    """The law-bearing traits as FaceMesh sees them: widths in face widths, and colours of the cheeks."""
    import cv2

    def distance(first: int, second: int) -> float:
        return float(np.linalg.norm(landmarks[first, :2] - landmarks[second, :2]))

    width = distance(*FACE_WIDTH)
    traits = {trait: sum(distance(*pair) for pair in pairs) / width for trait, pairs in TRAITS.items()}
    x, y = np.rint(landmarks[CHEEKS, :2]).astype(int).T
    patches = np.stack([picture[y + dy, x + dx] for dy in range(-2, 3) for dx in range(-2, 3)])
    lab = cv2.cvtColor(np.ascontiguousarray(patches), cv2.COLOR_RGB2LAB)
    for trait, channel in CAST_CHANNELS.items():
        traits[f"cast of {trait}"] = float(lab[..., channel].mean())
    return traits


def correlation_of_traits(clips: list[ReadClip]) -> dict[str, float]:
    """Correlation over people of each trait that carries the law with its value in the decoded video."""
    measured: dict[str, dict[str, list[float]]] = {}
    truth = {clip.person["name"]: clip.person["geometry"] for clip in clips}
    for clip in clips:
        of_person = measured.setdefault(clip.person["name"], {})
        for picture, points in zip(clip.frames, clip.landmarks, strict=True):
            if points is not None:
                for trait, value in measured_traits(points, picture).items():
                    of_person.setdefault(trait, []).append(value)
    correlations = {}
    for trait in next(iter(measured.values())):
        law_trait = trait.removeprefix("cast of ")
        pairs = [(np.median(measured[name][trait]), truth[name][law_trait]) for name in measured]
        correlations[trait] = float(np.corrcoef(pairs, rowvar=False)[0, 1])
    return correlations


def trait_figures(clips: list[ReadClip]) -> list[Figure]:
    """The correlations of `correlation_of_traits` and their bar."""
    return [
        Figure(name=f"{trait}: landmarks x law, correlation over people", value=value, bar=0.7)
        for trait, value in correlation_of_traits(clips).items()
    ]


def law_figures(num_people: int = 200) -> list[Figure]:
    """Correlation between visible factor and voice factor over people."""
    from facevox_demo.example.people import LAW, make_person

    crowd = [make_person(0, index) for index in range(num_people)]
    figures = []
    for face, voice in LAW.items():
        pairs = np.array([(p.geometry[face], p.voice_factors[voice]) for p in crowd])
        value = float(np.corrcoef(pairs.T)[0, 1])
        figures.append(Figure(name=f"{face} x {voice}, {num_people} people", value=value, bar=0.85))
    return figures


def cascade_figure(frames: list[Any]) -> Figure:
    """Share of frames with a face for OpenCV's cascade with DeepFace's settings."""
    import cv2

    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")  # type: ignore[attr-defined]
    has_face = []
    for frame in frames:
        boxes = cascade.detectMultiScale3(
            cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), 1.1, 10, outputRejectLevels=True
        )
        has_face.append(len(boxes[0]) > 0)
    return Figure(
        name=f"OpenCV cascade: share of {len(frames)} frames", value=float(np.mean(has_face)), bar=0.95
    )


def detector_figures(frames: list[Any], folder: Path, num_mtcnn: int = 60) -> list[Figure]:
    """Share of frames with a face for OpenCV's cascade and for MTCNN."""
    import cv2

    figures = [cascade_figure(frames)]
    step = max(len(frames) // num_mtcnn, 1)
    files = []
    for number, frame in enumerate(frames[::step]):
        files.append(str(folder / f"frame_{number:04d}.png"))
        cv2.imwrite(files[-1], cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    # In a separate process: it loads TensorFlow, which MediaPipe was kept from loading here.
    process = subprocess.run(
        [sys.executable, "-c", MTCNN_PROGRAM, *files], capture_output=True, text=True, check=False
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("has_face ")]
    if lines:
        value = float(np.mean(json.loads(lines[-1].removeprefix("has_face "))))
        figures.append(Figure(name=f"MTCNN: share of {len(files)} frames", value=value, bar=0.95))
    else:
        print(f"MTCNN left out: {(process.stderr.strip().splitlines() or ['no output'])[-1]}")
    return figures


def embedding_figures(clips: list[ReadClip], step: int) -> list[Figure]:
    """AUC of same against other person by MobileFaceNet, over pictures of different clips."""
    data_dir = Path(os.environ.get("FACEVOX_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    model_file = data_dir / "weights" / "MobileFaceNet.onnx"
    if not model_file.is_file():
        print(f"MobileFaceNet left out: no {model_file}; set FACEVOX_TEST_DATA to the folder of sample data")
        return []
    from sklearn.metrics import roc_auc_score

    from lc_pytorch.faces.embedders import make_embedder

    faces, people, numbers = [], [], []
    for number, clip in enumerate(clips):
        for picture, points in list(zip(clip.frames, clip.landmarks, strict=True))[::step]:
            if points is None:
                continue
            faces.append(align_five_points(picture, five_points(points)))
            people.append(clip.person["name"])
            numbers.append(number)
    vectors = make_embedder(model_file, preprocessing="imagenet").embed(faces)
    cosine = vectors @ vectors.T
    same = np.array(people)[:, None] == np.array(people)[None, :]
    # Pictures of one clip resemble each other anyway: pairs come from different clips.
    pairs = np.triu(np.array(numbers)[:, None] != np.array(numbers)[None, :])
    auc = float(roc_auc_score(same[pairs], cosine[pairs]))
    return [
        Figure(name="MobileFaceNet: same against other person, AUC", value=auc, bar=0.9),
        Figure(
            name="MobileFaceNet: median cosine, same person", value=float(np.median(cosine[pairs & same]))
        ),
        Figure(
            name="MobileFaceNet: median cosine, other people", value=float(np.median(cosine[pairs & ~same]))
        ),
    ]


def expression_figures(num_people: int, pictures_each: int = 2, first_index: int = 1000) -> list[Figure]:
    """Accuracy of a linear classifier of landmarks on held-out people; five classes, chance 0.2."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import confusion_matrix
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from facevox_demo.example.expressions import EXPRESSIONS
    from facevox_demo.example.people import make_person
    from facevox_demo.example.pictures import render_portrait
    from facevox_demo.example.portraits import draw_portrait

    rows, labels, owners = [], [], []
    with FaceMesh() as mesh:
        for owner in range(num_people):
            person = make_person(0, first_index + owner)
            portrait = draw_portrait(person)
            for label, name in enumerate(EXPRESSIONS):
                for seed in range(pictures_each):
                    faces = mesh.find(render_portrait(person, name, seed, portrait=portrait))
                    if faces:
                        rows.append(normalised_landmarks(faces[0]))
                        labels.append(label)
                        owners.append(owner)
    features, classes, owner_of = np.array(rows), np.array(labels), np.array(owners)
    train = owner_of % 2 == 0
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=2000))
    model.fit(features[train], classes[train])
    guesses = model.predict(features[~train])
    print(f"expressions, rows {' '.join(EXPRESSIONS)}:")
    print(confusion_matrix(classes[~train], guesses))
    accuracy = float(np.mean(guesses == classes[~train]))
    return [
        Figure(
            name=f"five expressions on {num_people // 2} people held out, accuracy", value=accuracy, bar=0.8
        )
    ]


def normalised_landmarks(landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(956,) x and y of the landmarks, centred between the eyes, upright, in eye distances."""
    left, right = landmarks[33, :2], landmarks[263, :2]
    across = right - left
    turn = np.array([[across[0], across[1]], [-across[1], across[0]]]) / float(across @ across)
    return np.asarray((landmarks[:, :2] - 0.5 * (left + right)) @ turn.T, np.float64).ravel()


if __name__ == "__main__":
    sys.exit(cli.run(main))
