"""Measure how fast masked faces and mel spectrograms are read for training, by the form of the files.

    python benchmarks/hq_loading.py
    python benchmarks/hq_loading.py --num 64 --mel_s 20

Training items of HQ VoxCeleb: a jpg, cropped, mirrored and resized to 224 px; and 1.5 s out of a spectrogram,
normalised. The spectrogram is in a pickle (a dictionary, 40 x T, float64, as in the real set), in a .npy as
releases have it (T x 40, float64), or converted by convert_mels.py (40 x T, float32, or float16).
Processor time of one thread counts, so that other work on the machine does not. The files are in memory, as
after the first epoch. For comparison: the standard library's unpickler, which would run code in the file; a
bare training step of the default network (ViT-Base, random weights) on two cores of this machine; and the
cores that feed a GPU which trains a ViT-Base at 390 pictures a second (an RTX 3090 or A100, published).

Exit codes: 0 done, 1 a bar is missed, 2 bad usage.
"""

import argparse
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox import cli
from facevox.errors import ExitCode
from facevox.files import write_image
from facevox_demo.figures import Figure, print_figures, write_figures

if TYPE_CHECKING:
    from lc_pytorch.hq.dataset import HQVoxCelebDataset

FACE_PX, CROP_FRAMES, NUM_MELS = 224, 150, 40
NUM_PEOPLE = 8
ROUNDS = 3
GPU_PICTURES_HZ = 390
MIN_PICKLES_HZ = 3000  # spectrograms of 2.5 s: training must not wait for reading them
MAX_CORES = 8  # machines come with twelve cores or more for each GPU
FORMS = ("pickle", "npy", "converted", "converted float16")


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/hq_loading.py --picture_px 512")
    parser.add_argument("--num", type=cli.positive_int, default=96, help="files of each form")
    parser.add_argument(
        "--mel_s", type=cli.positive_float, default=8.0, help="length of a spectrogram in seconds"
    )
    parser.add_argument("--picture_px", type=cli.positive_int, default=256, help="side of the jpgs in pixels")
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of the synthetic people")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there (default: none)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_faces(root, args.num, args.picture_px, args.seed)
        write_mels(root, "short", args.num, 2.5)
        write_mels(root, "mels", args.num, args.mel_s)
        figures = [*pickle_figures(root, args.num), *loading_figures(root, args.num)]
    figures.append(step_figure())
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


def write_faces(root: Path, num: int, picture_px: int, seed: int) -> None:
    """Portraits of example people as `faces/<number>.jpg`, each under several names."""
    import cv2

    from facevox_demo.example.people import make_person
    from facevox_demo.example.portraits import draw_portrait

    people = [draw_portrait(make_person(seed, k), max(picture_px, 256)).canvas for k in range(NUM_PEOPLE)]
    small = [cv2.resize(c, (picture_px, picture_px), interpolation=cv2.INTER_AREA) for c in people]
    for number in range(num):
        write_image(root / "faces" / f"{number}.jpg", small[number % NUM_PEOPLE], sync=False)


def write_mels(root: Path, name: str, num: int, length_s: float) -> None:
    """The same spectrograms in each form, `<name>/<form>/<number>.<suffix>`."""
    rng = np.random.default_rng(0)
    for form in FORMS:
        (root / name / form).mkdir(parents=True)
    for number in range(num):
        mel = rng.normal(11, 3, (NUM_MELS, round(length_s * 100)))
        value = {"LogMel_Features": mel, "spkid": "id1", "clipid": "c", "wavid": "00001"}
        (root / name / "pickle" / f"{number}.pickle").write_bytes(pickle.dumps(value, 3))
        np.save(root / name / "npy" / f"{number}.npy", mel.T)
        np.save(root / name / "converted" / f"{number}.npy", mel.astype(np.float32))
        np.save(root / name / "converted float16" / f"{number}.npy", mel.astype(np.float16))


def _seconds(ways: dict[str, Callable[[int], Any]], num: int) -> dict[str, float]:
    """Processor seconds for one item of each way, the best round of each."""
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):  # in turns: other work on the machine must not fall on one of them alone
        for name, load in ways.items():
            start_s = time.process_time()
            for index in range(num):
                load(index)
            seconds[name] = min(seconds[name], (time.process_time() - start_s) / num)
    return seconds


def pickle_figures(root: Path, num: int) -> list[Figure]:
    """The restricted unpickler on spectrograms of 2.5 s, against the standard library's."""
    from lc_pytorch.hq.pickles import load_plain

    files = [root / "short" / "pickle" / f"{number}.pickle" for number in range(num)]

    def unrestricted(index: int) -> Any:
        with files[index].open("rb") as file:
            return pickle.load(file)  # this program wrote it a moment ago

    ways: dict[str, Callable[[int], Any]] = {
        "ours": lambda index: load_plain(files[index]),
        "theirs": unrestricted,
    }
    seconds = _seconds(ways, num)
    return [
        Figure(
            "pickles of 2.5 s a second and core",
            round(1 / seconds["ours"]),
            "/s",
            MIN_PICKLES_HZ,
            True,
            False,
        ),
        Figure("time over the standard library's", seconds["ours"] / seconds["theirs"], "x", None, False),
    ]


def loading_figures(root: Path, num: int) -> list[Figure]:
    """Spectrograms alone, and whole items, for each form."""
    from lc_pytorch.hq.dataset import load_mel

    sets = {form: _items(root, form, num) for form in FORMS}
    mel_files = {form: [person.mels[0] for person in items.people] for form, items in sets.items()}

    def mel_of(form: str) -> Callable[[int], Any]:
        return lambda index: load_mel(mel_files[form][index], sets[form].mels)

    def item_of(form: str) -> Callable[[int], Any]:
        return lambda index: sets[form].load(index, 0)

    mels = _seconds({form: mel_of(form) for form in FORMS}, num)
    items = _seconds({form: item_of(form) for form in FORMS}, num)
    figures = []
    for form in FORMS:
        cores = GPU_PICTURES_HZ * items[form]
        figures += [
            Figure(f"{form}: mels a second and core", round(1 / mels[form]), "/s", None, True, False),
            Figure(f"{form}: items a second and core", round(1 / items[form], 1), "/s", None, True, False),
            Figure(f"{form}: cores for {GPU_PICTURES_HZ} items a second", cores, "", MAX_CORES, False, False),
        ]
    return [*figures, Figure("mels: converted over pickle", mels["pickle"] / mels["converted"], "x", 1.0)]


def _items(root: Path, form: str, num: int) -> "HQVoxCelebDataset":
    from lc_pytorch.datasets.transforms import ImageTransform
    from lc_pytorch.hq.dataset import HQPerson, HQVoxCelebDataset, MelSettings
    from lc_pytorch.hq.tree import Files

    suffix = ".pickle" if form == "pickle" else ".npy"
    people = [
        HQPerson(
            identity=f"person {number}",
            faces=Files((str(root / "faces"), (f"{number}.jpg",))),
            mels=Files((str(root / "mels" / form), (f"{number}{suffix}",))),
        )
        for number in range(num)
    ]
    settings = MelSettings(num_mels=NUM_MELS, num_frames=CROP_FRAMES, mel_mean=11.0, mel_std=3.0)
    return HQVoxCelebDataset(people, ImageTransform(image_size=FACE_PX), settings)


def step_figure() -> Figure:
    """Items a second of a bare training step (forward, backward, AdamW) of the default network, in fp32."""
    import torch
    from transformers import ViTConfig, ViTModel

    from lc_pytorch.losses import symmetric_info_nce
    from lc_pytorch.models.hq import HQVoxCelebModel

    torch.set_num_threads(2)
    model = HQVoxCelebModel(face_model=ViTModel(ViTConfig(), add_pooling_layer=False), num_frames=CROP_FRAMES)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    batch = 4
    mels = torch.randn(batch, NUM_MELS, CROP_FRAMES)
    faces = torch.randn(batch, 3, FACE_PX, FACE_PX)
    identities = torch.arange(batch)
    seconds = []
    for _ in range(2):  # the first one warms up
        start_s = time.perf_counter()
        face, audio = model(mels, faces)
        symmetric_info_nce(face, audio, identities, model.temperature).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start_s)
    rate = batch / min(seconds)
    return Figure(
        "bare training step on two cores, ViT-Base, items a second", round(rate, 2), "/s", None, True, False
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
