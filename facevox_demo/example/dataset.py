"""The files of an example set: videos, voices, a VoxCeleb-shaped tree, and metadata.

    videos/<person>/<clip>.mp4            H.264 and AAC
    voices/<person>/<clip>.wav            the same sound, 16 kHz mono 16 bit
    vox/<person>/faces/<clip>/<frame>.jpg face crops of a few frames
    vox/<person>/voices/<clip>.wav
    vox/metadata.json                     {person: {clip: {"faces": [...], "voice": ...}}}
    hq/vox1|vox2/…                        masked faces and mel spectrograms (`facevox_demo.example.hq_tree`)
    metadata.json                         people, the law, the clips with mouth and voice in each frame
    people.csv, manifests/                the batch's table and manifest

A person depends on (seed, index) alone, a clip on (seed, index, clip, length, rate, size): not on how many
there are, nor on workers, shards or order: on one kind of processor all files are the same to the last byte.
On another the people, words and movements are the same; last digits (of landmarks, colours, samples) differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facevox.batch import Outcome
from facevox.files import write_bytes, write_image, write_text
from facevox.media import write_video, write_wav
from facevox_demo.example import hq_tree, people
from facevox_demo.example.clips import ClipPlan, articulation_at, loudness_at, plan_clip, pose_at, vowels_at
from facevox_demo.example.people import Person, PersonItem, make_person
from facevox_demo.example.person_task import PersonTask
from facevox_demo.example.pictures import Mouth, PictureMaker
from facevox_demo.example.portraits import EYE_LINE_SHARE, FACE_UNIT_SHARE, Portrait, draw_portrait
from facevox_demo.example.voice import RATE_HZ, speak
from facevox_demo.options import SetConfig

FORMAT = 1  # of metadata.json
FRAMES_PER_CLIP = 3  # face crops of a clip in the VoxCeleb-shaped tree
CROP_UNITS = 2.05  # side of a face crop in face units: hair line to chin and some air, as in VoxCeleb
COLUMNS = ("person", "videos", "voices", "faces", "mels", "masked_faces", "frames", "seconds_of_video")
PROGRAM = "make_example_data"


def make_items(config: SetConfig) -> list[PersonItem]:
    """One item per person."""
    return [PersonItem(people.person_name(index), "", index=index) for index in range(config.num_people)]


def clip_frames(
    plan: ClipPlan,
    config: SetConfig,
    portrait: Portrait | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """The frames of a clip in order, (size, size, 3) uint8 RGB; frame k shows the mouth at time k / fps.

    Args:
        plan: The clip.
        config: Of its set.
        portrait: The person's, if it is at hand already.
        numbers: Which frames; None: all.
    """
    maker = PictureMaker(plan.person, config.size, plan.light, portrait, plan.expression.blush)
    times_s = config.frame_times_s
    opening, spread = articulation_at(plan, times_s)
    face = plan.expression
    for number in range(len(times_s)) if numbers is None else numbers:
        mouth = Mouth(opening=float(opening[number]), spread=float(spread[number]))
        yield maker.frame(mouth, pose_at(plan, float(times_s[number])), face.actions, number)


def clip_timeline(plan: ClipPlan, config: SetConfig) -> dict[str, object]:
    """State of mouth and voice at each frame's time, for `metadata.json`."""
    times_s = config.frame_times_s
    opening, spread = articulation_at(plan, times_s)
    return {
        "clip": plan.name,
        "expression": plan.expression_name,
        "noise_db": round(plan.noise_db, 2),
        "speech_s": [[round(s.start_s, 4), round(s.end_s, 4)] for s in plan.syllables],
        "syllables": " ".join(s.onset + s.vowel for s in plan.syllables),
        "vowels": vowels_at(plan, times_s),
        "opening": [round(float(v), 3) for v in opening],
        "spread": [round(float(v), 3) for v in spread],
        "loudness": [round(float(v), 3) for v in loudness_at(plan, times_s)],
    }


class PeopleTask(PersonTask):
    """Makes all files of one person."""

    def __init__(self, config: SetConfig) -> None:
        self.config = config

    def write_person(self, item: PersonItem) -> Outcome:
        """Writes the clips of the person `item.index`."""
        config = self.config
        person = make_person(config.seed, item.index)
        portrait = draw_portrait(person, config.size)
        outputs: list[str] = []
        for number in range(config.clips_per_person):
            outputs += self._write_clip(plan_clip(person, number, config.clip_s), portrait)
        kinds = [name.split("/")[0] + Path(name).suffix for name in outputs]
        row = {
            "videos": kinds.count("videos.mp4"),
            "voices": kinds.count("voices.wav"),
            "faces": kinds.count("vox.jpg"),
            "mels": kinds.count("hq.npy") + kinds.count("hq.pickle"),
            "masked_faces": kinds.count("hq.jpg") + kinds.count("hq.png"),
            "frames": config.frames_per_clip * config.clips_per_person,
            "seconds_of_video": round(config.clip_s * config.clips_per_person, 3),
        }
        return Outcome(rows=[row], outputs=outputs)

    def _write_clip(self, plan: ClipPlan, portrait: Portrait) -> list[str]:
        config, name = self.config, plan.person.name
        sound = speak(plan)
        numbers = crop_numbers(config)
        crop_frames: dict[int, NDArray[np.uint8]] = {}

        def watched() -> Iterator[NDArray[np.uint8]]:
            # A long clip is never in memory as a whole.
            for number, frame in enumerate(clip_frames(plan, config, portrait)):
                if number in numbers:
                    crop_frames[number] = frame
                yield frame

        outputs = []
        if "videos" in config.shapes:
            outputs += [f"videos/{name}/{plan.name}.mp4", f"voices/{name}/{plan.name}.wav"]
            write_video(self.output_dir / outputs[0], watched(), config.fps, sound, RATE_HZ)
            write_wav(self.output_dir / outputs[1], sound, RATE_HZ)
        else:
            # Without a video only the frames that are cut are drawn.
            crop_frames = dict(zip(numbers, clip_frames(plan, config, portrait, numbers), strict=True))
        if "vox" in config.shapes:
            outputs.append(f"vox/{name}/voices/{plan.name}.wav")
            write_wav(self.output_dir / outputs[-1], sound, RATE_HZ)
            for number, frame in crop_frames.items():
                outputs.append(f"vox/{name}/faces/{plan.name}/{crop_name(number)}")
                crop = face_crop(frame, plan, number / config.fps)
                write_image(self.output_dir / outputs[-1], crop)
        if "hq" in config.shapes:
            outputs += self._write_hq(plan, portrait, sound, crop_frames)
        return outputs

    def _write_hq(
        self,
        plan: ClipPlan,
        portrait: Portrait,
        sound: NDArray[np.float32],
        frames: dict[int, NDArray[np.uint8]],
    ) -> list[str]:
        config, outputs = self.config, []
        for path, content in hq_tree.mel_files(plan, sound).items():
            outputs.append(path)
            write_bytes(self.output_dir / path, content, sync=False)
        masks = hq_tree.MaskedFaces(plan, portrait, config.size, config.fps)
        for number, frame in frames.items():
            masked = face_crop(masks.apply(frame, number), plan, number / config.fps)
            for path in hq_tree.face_files(plan.person, plan.name, number):
                outputs.append(path)
                write_image(self.output_dir / path, masked, sync=False)
        return outputs


def crop_numbers(config: SetConfig) -> list[int]:
    """Numbers of the frames of a clip that the two VoxCeleb-shaped trees hold: spread over the clip."""
    count = min(FRAMES_PER_CLIP, config.frames_per_clip)
    return [int((k + 0.5) * config.frames_per_clip / count) for k in range(count)]


def crop_name(number: int) -> str:
    """File name of the crop of frame `number`."""
    return f"frame_{number:06d}.jpg"


def face_crop(frame: NDArray[np.uint8], plan: ClipPlan, time_s: float) -> NDArray[np.uint8]:
    """The square around the face, cut at the head's position at `time_s`."""
    size = frame.shape[0]
    unit = size * FACE_UNIT_SHARE
    pose = pose_at(plan, time_s)
    side = round(CROP_UNITS * unit)
    left = round(size * 0.5 + pose.shift_x * unit - side / 2)
    # The middle is 0.42 below the eyes, at the nose.
    top = round(size * EYE_LINE_SHARE + (pose.shift_y + 0.42) * unit - side / 2)
    left, top = (min(max(v, 0), size - side) for v in (left, top))
    return frame[top : top + side, left : left + side]


def write_metadata(output_dir: Path, config: SetConfig) -> None:
    """Writes `metadata.json` and those of the trees; the same for all shards of a set."""
    described, vox = [], {}
    persons = [make_person(config.seed, index) for index in range(config.num_people)]
    for person in persons:
        plans = [plan_clip(person, k, config.clip_s) for k in range(config.clips_per_person)]
        described.append({**person.describe(), "clips": [clip_timeline(plan, config) for plan in plans]})
        vox[person.name] = {plan.name: _vox_entry(person, plan, config) for plan in plans}
    value = {
        "format": FORMAT,
        **config.settings(),
        "num_people": config.num_people,
        "law": people.law_description(),
        "people": described,
    }
    # Without indents: the timelines would take a line for each number.
    write_text(output_dir / "metadata.json", json.dumps(value, ensure_ascii=False) + "\n")
    if "vox" in config.shapes:
        write_text(output_dir / "vox" / "metadata.json", json.dumps(vox) + "\n")
    if "hq" in config.shapes:
        for path, text in hq_tree.metadata_files(persons).items():
            write_text(output_dir / path, text)


def _vox_entry(person: Person, plan: ClipPlan, config: SetConfig) -> dict[str, object]:
    faces = [f"{person.name}/faces/{plan.name}/{crop_name(number)}" for number in crop_numbers(config)]
    return {"faces": faces, "voice": f"{person.name}/voices/{plan.name}.wav"}
