"""Measure how fast pairs of faces and voices are read for training, and how many cores a GPU needs.

    python benchmarks/face_voice_loading.py
    python benchmarks/face_voice_loading.py --picture_px 1024 --num 32

Training items of synthetic people: a jpg, cropped, mirrored and resized to 224 px; and 4 s out of a wav of
10 s at 16 kHz, normalised. Processor time of one thread counts, so that other work on the machine does not
(except for the last figure). The files are in memory, as after the first epoch: a slow disk adds its own
time. For comparison: the same work by the usual calls (transformers' processors, the whole recording by
librosa), and with faces that are in memory decoded and resized, which is the most that a cache of them could
save. And batches whose faces are packed for the device (--picture_transforms torchvision), compared with
ready ones.

Exit codes: 0 done, 1 a bar is missed, 2 bad usage.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facevox import cli
from facevox.errors import ExitCode
from facevox.files import encode_image, read_image, write_bytes
from facevox_demo.figures import Figure, print_figures, write_figures

if TYPE_CHECKING:
    from lc_pytorch.datasets import FaceVoiceDataset, FilePair

FACE_PX, CROP_S, RECORDING_S, RATE_HZ = 224, 4.0, 10.0, 16000
BATCH = 32
NUM_PEOPLE = 8
ROUNDS = 3
# Consumption of one GPU in training: pairs of a face and 4 s of voice on an H200 at 40 % of its peak in bf16,
# and pictures for a ViT-B/16 on an A100.
H200_PAIRS_HZ, A100_PAIRS_HZ = 1440, 390
MAX_CORES = 8  # machines come with twelve cores or more for each GPU


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/face_voice_loading.py --picture_px 512")
    parser.add_argument("--num", type=cli.positive_int, default=96, help="pairs, each read once in a round")
    parser.add_argument("--picture_px", type=cli.positive_int, default=256, help="side of the jpgs in pixels")
    parser.add_argument(
        "--workers", type=cli.natural_int, default=cli.num_cores(), help="loader processes of the last figure"
    )
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of the synthetic people")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there (default: none)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_pairs(Path(folder), args.num, args.picture_px, args.seed)
        figures = measure(pairs, args.picture_px, args.workers)
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


def make_pairs(folder: Path, num: int, picture_px: int, seed: int) -> "list[FilePair]":
    """Portraits and voices of example people, each under several names."""
    import cv2

    from facevox.media import write_wav
    from facevox_demo.example.clips import plan_clip
    from facevox_demo.example.people import make_person
    from facevox_demo.example.portraits import draw_portrait
    from facevox_demo.example.voice import speak
    from lc_pytorch.datasets import FilePair

    pictures, sounds = [], []
    for index in range(NUM_PEOPLE):
        person = make_person(seed, index)
        canvas = draw_portrait(person, max(picture_px, 256)).canvas
        size = (picture_px, picture_px)
        pictures.append(encode_image(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)))
        sounds.append(speak(plan_clip(person, 0, RECORDING_S)))
    pairs = []
    for number in range(num):
        face, voice = folder / f"{number}.jpg", folder / f"{number}.wav"
        write_bytes(face, pictures[number % NUM_PEOPLE], sync=False)
        write_wav(voice, sounds[number % NUM_PEOPLE], RATE_HZ, sync=False)
        pairs.append(FilePair(face, voice, f"person{number % NUM_PEOPLE}"))
    return pairs


def measure(pairs: "list[FilePair]", picture_px: int, workers: int) -> list[Figure]:
    """The figures of one set of files."""
    from lc_pytorch.datasets import FaceVoiceDataset
    from lc_pytorch.datasets.device_transforms import DeviceTransform

    items = FaceVoiceDataset(pairs, audio_duration_sec=CROP_S, target_sr=RATE_HZ)
    packed = FaceVoiceDataset(
        pairs,
        image_transform=DeviceTransform.of(items.image_transform),
        audio_duration_sec=CROP_S,
        target_sr=RATE_HZ,
    )
    ways: dict[str, Callable[[int], Any]] = {
        "ours": lambda index: items[0, index],
        "usual": _usual_way(pairs, items),
        "decoded": _with_decoded_faces(pairs, items),
        "batches": _in_batches(items),
        "packed": _in_batches(packed),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):  # in turns: other work on the machine must not fall on one of them alone
        for name, load in ways.items():
            start_s = time.process_time()
            for index in range(len(pairs)):
                load(index)
            seconds[name] = min(seconds[name], (time.process_time() - start_s) / len(pairs))
    rate_hz = 1 / seconds["ours"]
    head = f"{picture_px} px:"
    return [
        Figure(f"{head} pairs a second and core", round(rate_hz, 1), "/s", None, True, False),
        Figure(f"{head} cores for an H200", H200_PAIRS_HZ / rate_hz, "", MAX_CORES, False, False),
        Figure(f"{head} cores for an A100", A100_PAIRS_HZ / rate_hz, "", None, False, False),
        Figure(f"{head} times faster than the usual calls", seconds["usual"] / seconds["ours"], "x", 1.0),
        Figure(f"{head} times faster with decoded faces", seconds["ours"] / seconds["decoded"], "x"),
        Figure(
            f"{head} times faster with faces packed for the device",
            seconds["batches"] / seconds["packed"],
            "x",
            1.0,
        ),
        Figure(f"{head} bytes of packed faces, as a share", _packed_share(items, packed), "", None, False),
        Figure(
            f"{head} pairs a second, {workers} loader processes",
            round(_loader_rate_hz(items, workers), 1),
            "/s",
            None,
            True,
            False,
        ),
    ]


def _usual_way(pairs: "list[FilePair]", items: "FaceVoiceDataset") -> Callable[[int], Any]:
    """Whole recordings, and transformers' processors called one by one; without augmentation."""
    import librosa
    from PIL import Image
    from transformers import ViTImageProcessorPil, Wav2Vec2FeatureExtractor

    face_processor, voice_processor = ViTImageProcessorPil(), Wav2Vec2FeatureExtractor()

    def load(index: int) -> tuple[Any, Any]:
        with Image.open(pairs[index].face, formats=("JPEG", "PNG")) as picture:
            face = face_processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        samples, _ = librosa.load(pairs[index].voice, sr=RATE_HZ)
        crop = samples[RATE_HZ : RATE_HZ + items.num_samples]
        return face, voice_processor(crop, sampling_rate=RATE_HZ, return_tensors="pt")["input_values"][0]

    return load


def _with_decoded_faces(pairs: "list[FilePair]", items: "FaceVoiceDataset") -> Callable[[int], Any]:
    """Our own way, with the faces at model size in memory."""
    import cv2
    import torch

    from lc_pytorch.datasets.base import item_generator
    from lc_pytorch.datasets.face_voice import normalise_sound, read_voice

    small = [cv2.resize(read_image(pair.face), (FACE_PX, FACE_PX)) for pair in pairs]

    def load(index: int) -> tuple[Any, Any]:
        face = items.image_transform(small[index], item_generator(0, 0, index, "face"))
        generator = item_generator(0, 0, index, "voice")
        samples = read_voice(
            pairs[index].voice,
            items.num_samples,
            RATE_HZ,
            lambda total: int(generator.integers(total - items.num_samples + 1)),
        )
        return face, torch.from_numpy(normalise_sound(samples))

    return load


def _in_batches(items: "FaceVoiceDataset") -> Callable[[int], Any]:
    """Items, and a batch after each BATCH of them: packing is a part of its work."""
    waiting: list[Any] = []

    def load(index: int) -> None:
        waiting.append(items[0, index])
        if len(waiting) == BATCH:
            items.collate(waiting)
            waiting.clear()

    return load


def _packed_share(items: "FaceVoiceDataset", packed: "FaceVoiceDataset") -> float:
    """Bytes of the packed faces of a batch by those of the ready ones."""
    from torch import Tensor

    from lc_pytorch.datasets.device_transforms import PackedFaces

    ready, small = (
        way.collate([way[0, index] for index in range(min(BATCH, len(way)))])["face"]
        for way in (items, packed)
    )
    assert isinstance(ready, Tensor)
    assert isinstance(small, PackedFaces)
    return small.pixels.nbytes / ready.nbytes


def _loader_rate_hz(items: "FaceVoiceDataset", workers: int) -> float:
    """Pairs a second out of a loader once its processes run; a few epochs."""
    from torch.utils.data import DataLoader

    keys = [(epoch, index) for epoch in range(4) for index in range(len(items))]
    loader = DataLoader(items, batch_size=BATCH, sampler=keys, num_workers=workers)
    batches = iter(loader)
    next(batches)
    start_s = time.perf_counter()
    count = sum(len(batch["index"]) for batch in batches)
    return count / (time.perf_counter() - start_s)


if __name__ == "__main__":
    sys.exit(cli.run(main))
