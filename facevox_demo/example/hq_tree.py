"""The part of an example set that has the shape of HQ VoxCeleb: masked faces, mel spectrograms, metadata.

    hq/vox1/masked_faces/Example_0000/0001_000008.jpg       the face alone, the rest black
    hq/vox1/mel_spectrograms/Example_0000/id0000_0001_00001.npy        float32, (40, T) and (T, 40) in turns
    hq/vox1/vox1_meta.csv                                   tabs, as VoxCeleb1's
    hq/vox2/masked_faces/Example_0001/0001_000008.png
    hq/vox2/mel_spectrograms/Example_0001/id0001_0001_00001.pickle     {"LogMel_Features": (40, T) float64, …}
    hq/vox2/full_vox2_meta.csv                              commas, as the extended table of VoxCeleb2

The people are those of the other parts. Two of three are in vox2, one of three in vox1, and every twelfth is
in both, as happens in the real set. These people have no gender; the tables give "f" to the higher half of
the voices, so that balancing has something to balance.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox.spectra import htk_bands, mel_power
from facevox_demo.example.clips import ClipPlan, articulation_at, pose_at
from facevox_demo.example.people import PITCH_HZ, Person
from facevox_demo.example.pictures import Light, Mouth, PictureMaker
from facevox_demo.example.portraits import Portrait
from facevox_demo.example.sources import OVAL
from facevox_demo.example.voice import RATE_HZ

NUM_MELS = 40
HOP = 160  # 10 ms at 16 kHz: 100 frames a second
WINDOW = 400  # 25 ms
FFT_SIZE = 512
SAMPLE_SCALE = 32768.0  # the real set's features are of 16-bit samples: logarithms about 0 to 20
EDGE_UNITS = 0.04  # softness of the mask's border, in face units
_CLOSING = np.ones((25, 25), np.uint8)  # larger than an open mouth in a frame of 256 pixels
VOX1_HEADER = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"
VOX2_HEADER = "Class_ID,Name,Sample_Num,Flag,Gender_x,VoxCeleb2ID,VGGFace2ID,Gender_y,Set"


def folder_name(person: Person) -> str:
    """`Example_0007` for the person number 7."""
    return f"Example_{person.index:04d}"


def sets_of(index: int) -> tuple[str, ...]:
    """Those of vox1 and vox2 that a person is in."""
    if index % 12 == 5:
        return ("vox1", "vox2")
    return ("vox1",) if index % 3 == 0 else ("vox2",)


def log_mel(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """(40, T) float64 log of the mel power of a sound (n,) in [-1, 1] at 16 kHz, 100 frames a second.

    Frames are within the sound: T = 1 + (n - 400) // 160. A sound shorter than one frame is repeated.
    """
    samples = np.resize(sound, max(len(sound), WINDOW)).astype(np.float64) * SAMPLE_SCALE
    # The window is at the start of the transform, with zeros after it, also after the last frame.
    samples = np.pad(samples, (0, FFT_SIZE - WINDOW))
    window = np.pad(np.hamming(WINDOW), (0, FFT_SIZE - WINDOW))
    power_TB = mel_power(samples, window, FFT_SIZE, HOP, htk_bands(RATE_HZ, FFT_SIZE, NUM_MELS)) / FFT_SIZE
    return np.ascontiguousarray(np.log(power_TB + 1.0).T)


def mel_files(plan: ClipPlan, sound: NDArray[np.float32]) -> dict[str, bytes]:
    """The spectrogram of a clip as each of the person's sets holds it, by path below the set's folder."""
    person, mel = plan.person, log_mel(sound)
    stem = f"{person.name}_{plan.name}_00001"
    files = {}
    for set_name in sets_of(person.index):
        base = f"hq/{set_name}/mel_spectrograms/{folder_name(person)}/{stem}"
        if set_name == "vox1":
            stored = mel.astype(np.float32)
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(stored.T) if plan.number % 2 else stored)
            files[f"{base}.npy"] = content.getvalue()
        else:
            value = {"LogMel_Features": mel, "spkid": person.name, "clipid": plan.name, "wavid": "00001"}
            files[f"{base}.pickle"] = pickle.dumps(value, protocol=3)
    return files


class MaskedFaces:
    """Masks for the frames of one clip.

    The mask is a canvas of its own, white within the outline of the face, and goes through the very warps
    that make the frame.
    """

    def __init__(self, plan: ClipPlan, portrait: Portrait, size: int, fps: float) -> None:
        white = np.zeros(portrait.canvas.shape, np.uint8)
        cv2.fillPoly(white, [np.round(portrait.landmarks[list(OVAL)]).astype(np.int32)], (255, 255, 255))
        white = cv2.GaussianBlur(white, (0, 0), EDGE_UNITS * portrait.unit_px)
        self._maker = PictureMaker(plan.person, size, Light(noise=0.0), replace(portrait, canvas=white))
        self._plan, self._fps = plan, fps

    def apply(self, frame: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        """Frame `number` of the clip, (size, size, 3) uint8 RGB, black around the face."""
        time_s = number / self._fps
        opening, spread = articulation_at(self._plan, np.array([time_s]))
        mouth = Mouth(opening=float(opening[0]), spread=float(spread[0]))
        mask = self._maker.frame(mouth, pose_at(self._plan, time_s), self._plan.expression.actions, number)
        # An open mouth is painted dark into the mask too: a hole, to be closed.
        covered = cv2.morphologyEx(np.ascontiguousarray(mask[..., 0]), cv2.MORPH_CLOSE, _CLOSING)
        masked: NDArray[np.uint8] = cv2.multiply(frame, cv2.merge([covered] * 3), scale=1.0 / 255.0)
        return masked


def face_files(person: Person, clip: str, number: int) -> list[str]:
    """Paths of the masked face of frame `number` of a clip, in each of the person's sets."""
    suffix = {"vox1": ".jpg", "vox2": ".png"}
    return [
        f"hq/{set_name}/masked_faces/{folder_name(person)}/{clip}_{number:06d}{suffix[set_name]}"
        for set_name in sets_of(person.index)
    ]


def metadata_files(persons: list[Person]) -> dict[str, str]:
    """The two tables by path; their rows are in the order of the people."""
    vox1, vox2 = [VOX1_HEADER], [VOX2_HEADER]
    for person in persons:
        name, sets = folder_name(person), sets_of(person.index)
        gender = "f" if person.voice.pitch_hz > PITCH_HZ else "m"
        if "vox1" in sets:
            vox1.append(f"{person.name}\t{name}\t{gender}\tExample\tdev")
        if "vox2" in sets:
            number = f"n{person.index:06d}"
            vox2.append(f"{number},{name},0,1,{gender},{person.name},{number},{gender},dev")
    return {
        "hq/vox1/vox1_meta.csv": "\n".join(vox1) + "\n",
        "hq/vox2/full_vox2_meta.csv": "\n".join(vox2) + "\n",
    }
