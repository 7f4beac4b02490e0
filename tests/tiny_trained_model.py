"""A model folder with tiny encoders, and people with faces and voices: for tests of model users."""

from pathlib import Path

import numpy as np
import soundfile
import torch

from facevox.files import write_image, write_json
from facevox_demo.tiny_encoders import make_vit_config, make_wav2vec2_config
from lc_pytorch.datasets.splits import Split, normalise_identity
from lc_pytorch.models.face_voice import FaceVoiceModel
from lc_pytorch.models.store import save_config, save_weights

IMAGE_SIZE_PX = 16
RATE_HZ = 16000
DURATION_S = 0.1
DATA = {
    "image_size": IMAGE_SIZE_PX,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "target_sr": RATE_HZ,
    "audio_duration_sec": DURATION_S,
}


def make_tiny_model(embedding_dim: int = 16) -> FaceVoiceModel:
    """Random weights of a fixed seed, in evaluation mode."""
    from transformers import ViTModel, Wav2Vec2Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        face = ViTModel(make_vit_config(IMAGE_SIZE_PX), add_pooling_layer=False)
        voice = Wav2Vec2Model(make_wav2vec2_config())
        model = FaceVoiceModel(embedding_dim, face_model=face, voice_model=voice)
    return model.eval()


def write_split(file: Path, *, train: list[str], val: list[str], test: list[str]) -> Split:
    """A split.json with the given names."""
    lists = {"train": train, "val": val, "test": test}
    split = Split(**{part: tuple(map(normalise_identity, names)) for part, names in lists.items()})
    write_json(file, {"format": 1, **lists, "hash": split.hash})
    return split


def write_model(folder: Path, people: list[str], num_test: int) -> FaceVoiceModel:
    """A model's folder; the last `num_test` people are for testing, the first two for validation."""
    model = make_tiny_model()
    folder.mkdir(parents=True, exist_ok=True)
    save_config(folder, model, kind="face_voice", data=DATA, training={})
    for which in ("best", "last"):
        save_weights(folder, model, which=which)
    first = len(people) - num_test
    write_split(folder / "split.json", train=people[2:first], val=people[:2], test=people[first:])
    return model


def write_people(folder: Path, people: list[str], clips: int = 2) -> tuple[Path, Path]:
    """`faces/<person>/<clip>.png` and `voices/<person>/<clip>.wav`; returns the two folders."""
    for number, person in enumerate(people):
        random = np.random.default_rng(number)
        face = random.integers(0, 256, (20, 18, 3))
        tone = np.sin(np.arange(2000) * random.uniform(0.02, 0.3))
        for clip in range(clips):
            image = np.clip(face + random.integers(-20, 21, face.shape), 0, 255).astype(np.uint8)
            write_image(folder / "faces" / person / f"{clip}.png", image)
            voice_file = folder / "voices" / person / f"{clip}.wav"
            voice_file.parent.mkdir(parents=True, exist_ok=True)
            samples = 0.3 * tone + 0.02 * random.standard_normal(2000)
            with voice_file.open("wb") as file:  # any file name
                soundfile.write(file, samples, RATE_HZ, format="WAV")
    return folder / "faces", folder / "voices"
