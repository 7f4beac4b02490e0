"""Face pictures packed by the loader and transformed on the device, compared with Pillow's path.

torchvision is in the CUDA set only, and where it does not fit torch it breaks transformers for the whole
process. Tests that need it run here where it is installed with torch; and with FACEVOX_TORCHVISION=FOLDER
(`pip install --no-deps --target FOLDER torchvision==0.28.0`) all at once in a separate pytest process.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_training import (
    RATE_HZ,
    assert_same,
    options_for,
    plain_rows,
    write_encoders,
    write_people,
)

from facevox import cli
from facevox.errors import UserError
from facevox.training.batches import EpochBatches, make_loader
from facevox.training.checkpoint import load_checkpoint
from facevox.training.distributed import World
from facevox.training.run_folder import run_folder
from lc_pytorch.datasets import device_transforms
from lc_pytorch.datasets.device_transforms import (
    DeviceTransform,
    PackedFaces,
    choose_picture_transforms,
    faces_on_device,
    transform_of_training,
)
from lc_pytorch.datasets.face_voice import FaceVoiceDataset
from lc_pytorch.datasets.transforms import MIN_CROP_SHARE, ImageTransform
from lc_pytorch.hq.training import HQConfig, train_hq_voxceleb
from lc_pytorch.training import task as engine
from lc_pytorch.training.task import TrainConfig

FOLDER = os.environ.get("FACEVOX_TORCHVISION", "")
IS_CHILD = os.environ.get("FACEVOX_TORCHVISION_CHILD") == "1"
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ONE = World(device=CPU)

if IS_CHILD:
    sys.path.append(FOLDER)
    if torch.version.cuda is None:  # a CUDA build with CPU torch: its operators are missing
        LIBRARY = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
needs_torchvision = pytest.mark.skipif(
    not HAS_TORCHVISION, reason="needs torchvision beside torch (make install CUDA=1), or FACEVOX_TORCHVISION"
)
without_torchvision = pytest.mark.skipif(HAS_TORCHVISION, reason="torchvision is installed")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.skipif(
    not FOLDER or IS_CHILD,
    reason="set FACEVOX_TORCHVISION=FOLDER after pip install --no-deps --target FOLDER torchvision==0.28.0",
)
def test_all_of_this_with_torchvision_in_a_process_of_its_own() -> None:
    environment = os.environ | {"FACEVOX_TORCHVISION_CHILD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    assert "needs torchvision beside" not in done.stdout


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise at every scale: edges, flat parts and single bright pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(rng.random((height, width, 1)) < 0.3, noise, smooth)


def grey_levels(faces: torch.Tensor, transform: ImageTransform) -> np.ndarray:
    """(…, 3, S, S) from 0 to 255: the normalisation undone, by its definition."""
    mean_3, std_3 = (
        np.array(values)[:, None, None] for values in (transform.image_mean, transform.image_std)
    )
    return (faces.numpy() * std_3 + mean_3) * 255


# --- in the loader: no torchvision -------------------------------------------------------------------------


def test_an_item_is_the_crop_that_the_draws_say_and_draws_are_those_of_pillows_path() -> None:
    transform, image = ImageTransform(image_size=64), picture(97, 120)
    on_device = DeviceTransform.of(transform)
    num_mirrored = 0
    for seed in range(40):
        item = on_device.item(image, ours := np.random.default_rng(seed))
        transform(image, theirs := np.random.default_rng(seed))
        assert ours.bit_generator.state == theirs.bit_generator.state
        flip, share, left, top = np.random.default_rng(seed).random(4)
        kept = MIN_CROP_SHARE + (1 - MIN_CROP_SHARE) * share
        x, y = left * (1 - kept) * 120, top * (1 - kept) * 97
        expected = image[round(y) : round(y + kept * 97), round(x) : round(x + kept * 120)]
        assert item["face"].dtype == torch.uint8
        np.testing.assert_array_equal(item["face"].numpy(), expected)
        assert bool(item["is_mirrored"]) == (flip < 0.5)
        num_mirrored += bool(item["is_mirrored"])
    assert 10 < num_mirrored < 30
    whole = on_device.item(image)
    np.testing.assert_array_equal(whole["face"].numpy(), image)
    assert not whole["is_mirrored"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (2, 3), (3, 129), (4000, 3000), (3, 5000)])
def test_pictures_of_any_size_are_packed_and_large_ones_into_few_bytes(shape: tuple) -> None:
    on_device, image = DeviceTransform(image_size=32), picture(*shape)
    for seed in range(10):
        face = on_device.item(image, np.random.default_rng(seed))["face"]
        assert face.numel() >= 3
        assert max(face.shape) <= 3 * 32
        if min(shape) > 3 * 32 / MIN_CROP_SHARE:
            assert face.shape == (32, 32, 3)


@pytest.mark.parametrize("resample", [2, 3])
def test_a_large_picture_is_resized_in_the_loader_exactly_as_on_pillows_path(resample: int) -> None:
    plain = ImageTransform(image_size=48, image_mean=(0, 0, 0), image_std=(1, 1, 1), resample=resample)
    image = picture(170, 101)
    for seed in range(6):
        item = DeviceTransform.of(plain).item(image, np.random.default_rng(seed))
        expected = np.rint(plain(image, np.random.default_rng(seed)).numpy() * 255).transpose(1, 2, 0)
        found = item["face"].numpy()
        np.testing.assert_array_equal(found[:, ::-1] if item["is_mirrored"] else found, expected)


def test_a_batch_holds_the_bytes_of_all_its_pictures_one_after_the_other() -> None:
    transform = DeviceTransform(image_size=40)
    images = [picture(height, width, seed=height) for height, width in ((30, 50), (1, 1), (7, 80))]
    items = [
        transform.item(image) | {"voice": torch.full((5,), float(number)), "index": torch.tensor(number)}
        for number, image in enumerate(images)
    ]
    items.append(items[0] | {"is_mirrored": torch.tensor(True)})
    batch = transform.collate(items)
    faces = batch.pop("face")
    assert isinstance(faces, PackedFaces)
    assert faces.transform == transform
    assert faces.sizes_B2.tolist() == [[30, 50], [1, 1], [7, 80], [30, 50]]
    assert faces.is_mirrored_B.tolist() == [False, False, False, True]
    assert faces.pixels.numpy().tobytes() == b"".join(images[k].tobytes() for k in (0, 1, 2, 0))
    assert_same(
        batch,
        {
            "voice": torch.tensor([[k] * 5 for k in (0.0, 1.0, 2.0, 0.0)]),
            "index": torch.tensor([0, 1, 2, 0]),
        },
    )


def test_the_thread_that_pins_batches_pins_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils.pin_memory import pin_memory

    transform = DeviceTransform(image_size=8)
    faces = transform.collate([transform.item(picture(5, 6))])["face"]
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    after = pin_memory({"face": faces})["face"]
    assert [tensor is faces.pixels for tensor in pinned] == [True]
    assert after.pixels is not faces.pixels
    assert torch.equal(after.pixels, faces.pixels)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small set")
    write_encoders(folder)
    write_people(folder / "data", 10)
    return folder


def make_set(base: Path, transform: ImageTransform) -> FaceVoiceDataset:
    lines = (base / "data" / "pairs.txt").read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split("\t")) for line in lines]
    from transformers import Wav2Vec2FeatureExtractor

    processor = Wav2Vec2FeatureExtractor(sampling_rate=RATE_HZ)
    return FaceVoiceDataset(pairs, processor, transform, audio_duration_sec=0.1, target_sr=RATE_HZ, seed=1)


@without_torchvision
def test_loader_processes_give_the_same_batches_and_need_no_torchvision(base: Path) -> None:
    items = make_set(base, DeviceTransform(image_size=32))
    (base / "data" / "p03" / "faces" / "1.jpg").write_bytes(b"no picture")
    batches = EpochBatches(len(items), 5, seed=2)
    try:
        found, expected = (
            list(make_loader(items, batches, num_workers=n, device=CPU, collate_fn=items.collate))
            for n in (2, 0)
        )
    finally:
        write_people(base / "data", 10)
    assert len(found) == 4
    for one, other in zip(found, expected, strict=True):
        assert_same(vars(one.pop("face")), vars(other.pop("face")))
        assert_same(one, other)
    replaced = torch.cat([batch["index"] != batch["used_index"] for batch in found])
    assert int(replaced.sum()) >= 1


def test_pillows_faces_only_move(base: Path) -> None:
    items = make_set(base, transform_of_training(ImageTransform(image_size=32), "pillow"))
    batch = items.collate([items[0, k] for k in range(3)])
    assert torch.equal(
        faces_on_device(batch["face"], CPU), torch.stack([items[0, k]["face"] for k in range(3)])
    )


# --- which of the two --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "failure", "chosen", "words"),
    [
        ("auto", CPU, None, "pillow", "Pillow in the loader processes"),
        ("pillow", CUDA, None, "pillow", "Pillow in the loader processes"),
        ("auto", CUDA, "", "torchvision", "torchvision on the cuda device"),
        ("torchvision", CPU, "", "torchvision", "torchvision on the cpu device"),
        ("auto", CUDA, device_transforms.MISSING, "pillow", "for torchvision is not installed"),
    ],
)
def test_choice_goes_by_the_device_and_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    device: torch.device,
    failure: str | None,
    chosen: str,
    words: str,
) -> None:
    def look() -> str:
        assert failure is not None, "nothing is to be imported here"
        return failure

    monkeypatch.setattr(device_transforms, "_import_failure", look)
    name, line = choose_picture_transforms(asked, device)
    assert name == chosen
    assert words in line
    assert "\n" not in line


def test_one_process_without_torchvision_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_transforms, "_import_failure", lambda: "")
    monkeypatch.setattr(
        device_transforms.distributed, "gather_objects", lambda own: [own, device_transforms.MISSING]
    )
    assert choose_picture_transforms("auto", CUDA)[0] == "pillow"
    with pytest.raises(UserError, match="not installed"):
        choose_picture_transforms("torchvision", CUDA)
    monkeypatch.setattr(device_transforms.distributed, "gather_objects", lambda own: [own, ""])
    assert choose_picture_transforms("auto", CUDA)[0] == "torchvision"
    monkeypatch.setattr(device_transforms.distributed, "any_rank", lambda flag: True)  # one runs on its CPU
    assert choose_picture_transforms("auto", CUDA)[0] == "pillow"


@without_torchvision
@pytest.mark.parametrize("program", ["training/train_face_voice_from_matched_file", "hq/train_hq_voxceleb"])
def test_torchvision_asked_for_and_missing_is_one_line_that_says_what_to_do(
    load_script: Any, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    options = ["--save_dir", str(tmp_path / "run"), "--device", "cpu", "--picture_transforms", "torchvision"]
    if "matched" in program:
        options += ["--matched_file", str(base / "data" / "pairs.txt")]
    assert cli.run(load_script(program).main, options) == 2
    message = capsys.readouterr().err
    assert "torchvision is not installed" in message
    assert "make install CUDA=1" in message
    assert message.count("\n") == 1


@without_torchvision
def test_a_torchvision_for_another_torch_is_reported_before_transformers_fails_on_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('no operator nms')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"installed here and cannot be imported \(RuntimeError: no operator nms\)"
    ):
        choose_picture_transforms("auto", CUDA)


def test_a_run_may_go_on_where_torchvision_is_or_is_not(tmp_path: Path) -> None:
    for name in ("pillow", "torchvision"):
        assert "picture_transforms" not in TrainConfig(save_dir=tmp_path, picture_transforms=name).lasting()
    with pytest.raises(UserError, match=r"--picture_transforms: 'gpu' .*auto, pillow, torchvision"):
        TrainConfig(save_dir=tmp_path, picture_transforms="gpu")


def test_the_programs_offer_what_the_settings_take(load_script: Any) -> None:
    for program in ("training/train_face_voice", "hq/train_hq_voxceleb"):
        parser = load_script(program).get_args_parser()
        needed = ["--save_dir", "x"] + (
            [] if "hq" in program else ["--image_folder", "x", "--audio_folder", "x"]
        )
        assert parser.parse_args(needed).picture_transforms == device_transforms.AUTO
        for name in (device_transforms.PILLOW, device_transforms.TORCHVISION):
            assert parser.parse_args([*needed, "--picture_transforms", name]).picture_transforms == name


# --- with torchvision --------------------------------------------------------------------------------------

TALL = (128, 5)  # Pillow 13 resizes columns before rows here, and clips what bicubic overshoots elsewhere
SHAPES = [(64, 64), (20, 25), (127, 128), (61, 33), (1, 1), (2, 90), TALL]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


@needs_torchvision
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resample", [2, 3])
def test_a_mixed_batch_is_what_pillow_makes_of_each_picture(device: str, resample: int) -> None:
    """Both resize the same whole pixels: up and down, odd sizes, mirrored or not."""
    transform = ImageTransform(
        image_size=64,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
        resample=resample,
    )
    on_device = DeviceTransform.of(transform)
    items, expected = [], []
    for number, shape in enumerate(SHAPES * 2):
        image = picture(*shape, seed=number)
        is_mirrored = number >= len(SHAPES)
        items.append(on_device.item(image) | {"is_mirrored": torch.tensor(is_mirrored)})
        if shape == TALL and resample == 3:
            image = np.asarray(Image.fromarray(image).resize((64, 128), Image.Resampling.BICUBIC))
        face = transform(image)
        expected.append(face.flip(2) if is_mirrored else face)
    faces = faces_on_device(on_device.collate(items)["face"], torch.device(device)).cpu()
    assert faces.shape == (len(items), 3, 64, 64)
    assert faces.dtype == torch.float32
    levels, pillow_levels = grey_levels(faces, transform), grey_levels(torch.stack(expected), transform)
    assert np.abs(levels - np.rint(levels)).max() < 1e-3
    assert levels.min() > -1e-3
    assert levels.max() < 255.001
    difference = np.abs(levels - pillow_levels).max(axis=(1, 2, 3))
    assert difference.max() < (1.01 if resample == 2 else 2.01), difference
    assert np.ptp(pillow_levels) > 200


@needs_torchvision
@pytest.mark.parametrize("resample", [2, 3])
def test_drawn_crops_are_those_of_pillows_path_but_for_parts_of_a_pixel(resample: int) -> None:
    transform = ImageTransform(image_size=64, image_mean=(0, 0, 0), image_std=(1, 1, 1), resample=resample)
    on_device = DeviceTransform.of(transform)
    ramp = np.linspace(0, 255, 120)
    image = np.rint(
        np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 255 - ramp[:, None]), axis=2)
    ).astype(np.uint8)
    for seed in range(20):
        item = on_device.item(image, np.random.default_rng(seed))
        found = faces_on_device(on_device.collate([item])["face"], CPU)[0]
        expected = transform(image, np.random.default_rng(seed))
        # 255 / 119 grey levels a pixel, half a pixel of rounding at either end, and whole levels.
        assert float((found - expected).abs().max()) * 255 < 0.5 * 255 / 119 + 1.5


def train(load_script: Any, base: Path, save_dir: Path, **changes: object) -> int:
    listing = base / "data" / "pairs.txt"
    encoders = (base / "vit", base / "wav2vec2")
    changes = {"picture_transforms": "torchvision", "test_size": 0.1, "val_size": 0.2} | changes
    program = load_script("training/train_face_voice_from_matched_file")
    return int(cli.run(program.main, options_for(listing, encoders, save_dir, **changes)))


def history(save_dir: Path) -> list[dict[str, Any]]:
    return plain_rows(json.loads((save_dir / "history.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory, load_script: Any) -> Path:
    """A training that nobody ended."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    torch.set_num_threads(1)
    assert train(load_script, base, folder) == 0
    return folder


@needs_torchvision
def test_a_training_keeps_the_choice_and_learns_as_with_pillow(
    load_script: Any, base: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert train(load_script, base, tmp_path / "again") == 0
    assert "face pictures: resized by torchvision on the cpu device\n" in capsys.readouterr().out
    assert history(tmp_path / "again") == history(whole)
    config = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    assert config["training"]["picture_transforms"] == "torchvision"
    assert train(load_script, base, tmp_path / "pillow", picture_transforms="auto") == 0
    assert "face pictures: resized by Pillow in the loader processes\n" in capsys.readouterr().out
    config = json.loads((tmp_path / "pillow" / "config.json").read_text(encoding="utf-8"))
    assert config["training"]["picture_transforms"] == "pillow"
    losses, pillow_losses = (
        np.array([row["train_loss"] for row in history(folder)]) for folder in (whole, tmp_path / "pillow")
    )
    assert not np.array_equal(losses, pillow_losses)
    np.testing.assert_allclose(losses, pillow_losses, rtol=0.05)


@needs_torchvision
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_training_ends_bit_for_bit_as_one_that_nobody_ended(
    load_script: Any,
    base: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: int,
) -> None:
    plain, steps = engine.ContrastiveTask.after_step, []

    def after_step(self: engine.ContrastiveTask) -> None:
        plain(self)
        steps.append(1)
        if len(steps) == 5:
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(engine.ContrastiveTask, "after_step", after_step)
    assert train(load_script, base, tmp_path / "run", num_workers=num_workers) == 75
    assert train(load_script, base, tmp_path / "run", num_workers=num_workers) == 0
    found, expected = (load_checkpoint(folder / "last.pth") for folder in (tmp_path / "run", whole))
    assert_same(found["model"], expected["model"])
    assert_same(found["optimizer"], expected["optimizer"])
    assert history(tmp_path / "run") == history(whole)


@needs_torchvision
def test_a_run_goes_on_with_the_other_choice(
    load_script: Any, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(load_script, base, tmp_path / "run", num_epochs=2) == 0
    assert train(load_script, base, tmp_path / "run", picture_transforms="auto", num_epochs=3) == 0
    message = capsys.readouterr().out
    assert "resized by torchvision" in message
    assert "resized by Pillow" in message
    assert [row["epoch"] for row in history(tmp_path / "run")] == [1, 2, 3]


@needs_torchvision
def test_parts_of_a_batch_leave_the_loss_as_it_is(load_script: Any, base: Path, tmp_path: Path) -> None:
    face_model, voice_model = write_encoders(tmp_path, dropout=0.0)
    changes: dict[str, object] = {"face_model": face_model, "voice_model": voice_model, "num_epochs": 1}
    assert train(load_script, base, tmp_path / "parts", accum_freq=2, **changes) == 0
    assert train(load_script, base, tmp_path / "one", **changes) == 0
    losses = [history(tmp_path / name)[0]["train_loss"] for name in ("parts", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@needs_torchvision
def test_a_dry_run_writes_nothing(
    load_script: Any, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(load_script, base, tmp_path / "run", dry_run=True, checkpoint_interval=None) == 0
    assert "steps of" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@needs_torchvision
def test_bad_pictures_are_replaced_and_listed(load_script: Any, base: Path, tmp_path: Path) -> None:
    bad = [base / "data" / f"p{person:02}" / "faces" / "0.jpg" for person in range(10)]
    try:
        for file in bad:
            file.write_bytes(b"no picture")
        assert train(load_script, base, tmp_path / "run", num_epochs=1, val_size=0) == 0
    finally:
        write_people(base / "data", 10)
    listed = (tmp_path / "run" / "bad_files.csv").read_text(encoding="utf-8")
    assert "not a picture" in listed


@needs_torchvision
def test_hq_training_takes_it_too(base: Path, tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    names = [f"person_{number}" for number in range(6)]
    for number, name in enumerate(names):
        mels, faces = (tmp_path / "vox2" / kind / name for kind in ("mel_spectrograms", "masked_faces"))
        mels.mkdir(parents=True)
        faces.mkdir(parents=True)
        np.save(mels / "0.npy", rng.normal(11, 3, (40, 200)))
        Image.fromarray(picture(40 + number, 37, seed=number)).save(faces / "0.png")
    (tmp_path / "split.json").write_text(
        json.dumps({"vox2": {"train": names, "val": [], "test": []}}), encoding="utf-8"
    )
    config = HQConfig(
        save_dir=tmp_path / "run",
        split_json_path=tmp_path / "split.json",
        face_model=str(base / "vit"),
        embedding_dim=8,
        batch_size=3,
        num_epochs=2,
        audio_duration_sec=0.5,
        picture_transforms="torchvision",
    )
    with run_folder(config.save_dir):
        result = train_hq_voxceleb(config, ONE)
    assert result.status == "done"
    assert "face pictures: resized by torchvision on the cpu device\n" in logged.text
