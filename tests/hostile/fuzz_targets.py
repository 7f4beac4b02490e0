"""Files of every format that programs read, each with the readers and the programs that read it."""

import importlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from facevox.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent.parent
LIGHT, TORCH, KERAS = "light", "torch", "keras"  # processes: TensorFlow and torch do not share one
CONTENT, CUTS = "content", "cuts"  # damage that has to be noticed: any (there are checksums), the end missing


class SilentDamageError(Exception):
    """A reader returned damaged content as if it were whole."""


@dataclass(frozen=True)
class Target:
    """A file of some format, and readers of it.

    Attributes:
        name: Of the target, as in a list of findings.
        form: The format.
        lane: The process that it is read in.
        file: The file that is changed, relative to the folder that `make` fills.
        make: Writes the file, and others that are read with it, into a folder.
        read: Reads the changed file; gets the file. What it returns is compared with that of the whole file.
        program: Module of a program and its arguments for a folder and a new output folder; None: no program.
        notices: What the reader has to notice: CONTENT, CUTS or "".
    """

    name: str
    form: str
    lane: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    program: Callable[[Path, Path], tuple[str, Sequence[object]]] | None = None
    notices: str = ""


# --- media and pictures ----------------------------------------------------------------------------------


def _picture(side: int = 48) -> "np.ndarray[Any, Any]":
    rows = np.linspace(0, 255, side)
    return np.stack(
        [np.add.outer(rows, rows) / 2, np.tile(rows, (side, 1)), 255 - np.tile(rows, (side, 1))], -1
    ).astype(np.uint8)


def _sound(num: int = 8000) -> "np.ndarray[Any, Any]":
    return (0.3 * np.sin(np.arange(num) * 0.1)).astype(np.float32)


def make_video(folder: Path) -> None:
    from facevox.media import write_video

    (folder / "in").mkdir()
    frames = [np.roll(_picture(64), 3 * number, axis=1) for number in range(12)]
    write_video(folder / "in" / "talk.mp4", frames, 25, _sound(), preset="ultrafast")


def read_video(file: Path) -> None:
    from facevox.media import iter_frames, probe, read_audio

    faults = []
    for read in (probe, lambda path: list(iter_frames(path)), lambda path: read_audio(path, 16000)):
        try:
            read(file)
        except UserError as error:
            faults.append(error)
    if faults:
        raise faults[0]


def make_wav(folder: Path) -> None:
    from facevox.media import write_wav

    (folder / "in").mkdir()
    write_wav(folder / "in" / "talk.wav", _sound(), 16000)


def read_wav(file: Path) -> None:
    from facevox.media import read_audio
    from lc_pytorch.datasets.face_voice import read_voice

    read_audio(file, 16000)
    read_voice(file, 4000, 16000, lambda count: 0)


def shift_video(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    video = next((folder / "in").iterdir())
    return "lipsync/inference", ["--video", video, "--output", out / "new.mp4", "--offset_ms", 40]


def extract(name: str) -> Callable[[Path, Path], tuple[str, Sequence[object]]]:
    def program(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
        options = ["--video_extensions", "*.mp4", "*.wav"] if name == "extract_voices" else []
        where = ["--dataset_path", folder / "in", "--output_dir", out]
        return f"preprocessing/{name}", [*where, "--workers", 0, *options]

    return program


def make_picture(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from facevox.files import write_image

        if name.endswith(".heic"):
            from heic_files import heic

            (folder / name).write_bytes(heic(_picture(64)))
        else:
            write_image(folder / name, _picture(64))

    return make


def read_picture(file: Path) -> object:
    from emotion.data.pictures import decode_reduced
    from emotion.serving.pictures import decode_upload
    from emotion.serving.refusals import Refusal
    from facevox.files import read_image

    data = file.read_bytes()
    for read in (
        lambda: decode_reduced(data, "picture", lambda width, height: 2),
        lambda: decode_upload(data, 1_000_000),
    ):
        try:
            read()
        except (UserError, Refusal):
            continue
    return read_image(file)


def predict(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    return "emotion/run_model", [
        *("--test_mode", "image", "--input_path", folder, "--output_dir", out, "--model_dir", folder),
        "--no_window",
    ]


# --- archives and arrays ---------------------------------------------------------------------------------


def make_archive(folder: Path) -> None:
    from facevox.files import encode_image

    with zipfile.ZipFile(folder / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            picture = np.roll(_picture(64), number * 5, axis=0)
            archive.writestr(f"train/happy/{number}.jpg", encode_image(picture, ".jpg"))
        archive.writestr(
            "train/labels.json", json.dumps([{"filename": "0.jpg", "faceExp_uploader": "happy"}])
        )
    (folder / "whole").write_bytes((folder / "in.zip").read_bytes())


def read_archive(file: Path) -> None:
    from emotion.data.aihub.archives import Archive
    from emotion.data.aihub.collection import read_collection
    from emotion.data.aihub.collection import read_picture as read_member

    with zipfile.ZipFile(file.parent / "whole") as whole:
        contents = {whole.read(name) for name in whole.namelist()}
    faults = []
    collection = read_collection(file.parent, what="--zips")
    with Archive(file) as archive:
        for picture in collection.pictures:
            try:
                if read_member(picture.container, picture.offset, archive) not in contents:
                    raise SilentDamageError(picture.name)
            except UserError as error:
                faults.append(error)
    if faults:
        raise faults[0]


def extract_landmarks(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    options = ["--zips", folder / "in.zip", "--output_dir", out, "--workers", 0, "--log_dir", out / "logs"]
    return "emotion/landmarks/extract", options


def make_landmarks(folder: Path) -> None:
    from landmark_folders import make_folder

    make_folder(folder / "landmarks", num_people=2, per_person=2)


def read_landmarks(file: Path) -> object:
    from emotion.landmarks.table import load_table

    folder = next(parent for parent in file.parents if parent.name == "landmarks")
    table = load_table(folder, in_memory=True)
    return [table.rows.read(np.arange(len(table))), table.names, table.labels]


def make_mel(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import pickle

        mel = np.random.default_rng(0).normal(0, 1, (40, 60)).astype(np.float32)
        if name.endswith(".npy"):
            np.save(folder / name, mel)
        else:
            (folder / name).write_bytes(pickle.dumps({"LogMel_Features": mel, "id": "x"}, protocol=4))

    return make


def read_spectrogram(file: Path) -> object:
    from lc_pytorch.hq.mels import read_mel

    return read_mel(file)


def make_clip(folder: Path) -> None:
    from test_damaged_bytes import make_clip_file

    make_clip_file(folder / "clip.npz")


def read_clip(file: Path) -> object:
    from lipsync.clips.clip_files import load_clip

    return load_clip(file)


def make_state(folder: Path) -> None:
    import test_damaged_bytes

    test_damaged_bytes.make_state(folder / "state.npz")


def read_state(file: Path) -> object:
    from emotion.classifier.train_state import load_state

    return load_state(file)


def make_vectors(folder: Path) -> None:
    from lc_pytorch.faces.embedding_store import VectorStore

    vectors = np.eye(4, 8, dtype=np.float32)
    with VectorStore(folder) as store:
        store.append([bytes([number]) * 32 for number in range(4)], [[1.0] * 5] * 4, vectors)
    next(folder.glob("vectors-*.bin")).rename(folder / "vectors-0.bin")


def read_vectors(file: Path) -> object:
    from lc_pytorch.faces.embedding_store import VectorStore

    with VectorStore(file.parent) as store:
        keys = [bytes([number]) * 32 for number in range(4) if bytes([number]) * 32 in store]
        return [store.facts(key) for key in keys], store.vectors(keys)


# --- tables, lists, settings -----------------------------------------------------------------------------

PEOPLE = ["anna", "bert", "carl"]


def write_json(content: object, name: str = "file.json") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(json.dumps(content), encoding="utf-8")  # type: ignore[return-value]


def read_split(file: Path) -> object:
    from lc_pytorch.datasets.splits import load_split

    return load_split(file)


def read_hq_split(file: Path) -> object:
    from lc_pytorch.hq.split import load_split

    return load_split(file)


def make_identities(folder: Path) -> None:
    for name in ("faces/c/1.jpg", "voices/c.wav"):
        (folder / "id1" / name).parent.mkdir(parents=True)
        (folder / "id1" / name).write_bytes(b"x")
    write_json({"id1": {"a": "b"}, "id2": {}})(folder)


def read_identities(file: Path) -> None:
    from lc_pytorch.datasets.matched_files import write_matched_files

    write_matched_files(file.parent, file, file.parent / "out", 2)


def make_plan(folder: Path) -> None:
    (folder / "out" / "manifests").mkdir(parents=True)
    (folder / "source.jpg").write_bytes(b"x")
    write_json(["old.jpg", "best/b.jpg"], "out/manifests/deduplicate_faces.plan.json")(folder)


def read_plan(file: Path) -> None:
    from lc_pytorch.faces.group_files import Placement, replace_files

    out = file.parent.parent
    placement = Placement(out.parent / "source.jpg", out / "best" / "a.jpg")
    replace_files([placement], (out, out / "best"), overwrite=False, on_copied=lambda: False)


def make_records(folder: Path) -> None:
    from facevox.cluster.records import Record

    record = Record(
        folder=folder / "20260101-000000-good-0001",
        job="train",
        arguments=["--x"],
        cluster="local",
        root=folder,
        output_dir="out",
        num_epochs=2,
        job_ids=["3"],
        host="elsewhere",
    )
    record.folder.mkdir()
    record.write()
    state = {"state": "done", "exit_code": 0, "host": "h", "at": 1.0, "num_starts": 1}
    write_json(state, "state-0.json")(record.folder)
    (folder / "out").mkdir()
    write_json([{"epoch": 1, "train_loss": 0.5}], "out/history.json")(folder)


def read_records(file: Path) -> None:
    from facevox.cluster.progress import progress_text, statuses
    from facevox.cluster.records import load_records

    folder = next(parent for parent in file.parents if list(parent.glob("2026*")))
    for status in statuses(load_records(folder)):
        progress_text(status.record)


def show_status(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    return "cluster/status", ["--log_dir", folder]


def copy_of(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / Path(name).name).write_bytes((REPOSITORY / name).read_bytes())  # type: ignore[return-value]


def make_pipeline(folder: Path) -> None:
    text = (REPOSITORY / "examples" / "pipeline.yaml").read_text(encoding="utf-8")
    (folder / "pipeline.yaml").write_text(text.replace("videos: data/videos", "videos: ."), encoding="utf-8")


def read_pipeline(file: Path) -> object:
    from facevox.cluster.pipeline import load_pipeline
    from facevox_programs.jobs import TABLE

    return load_pipeline(file, TABLE, {}, {})


def show_pipeline(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    options = ["--cluster", "local", "--dry_run", "--log_dir", out]
    return "cluster/pipeline", [folder / "pipeline.yaml", *options]


def read_lipsync_settings(file: Path) -> object:
    from lipsync.settings import load_settings

    return load_settings(file)


def process_clips(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    folders = [f"paths.{name}={out / name}" for name in ("videos_dir", "audios_dir", "processed_dir")]
    return "lipsync/data_processing", [
        "--config",
        folder / "config.yaml",
        *(w for f in folders for w in ("--set", f)),
    ]


def read_env(file: Path) -> object:
    from emotion.settings import read_settings

    return read_settings(file, {}, {})


def write_csv(row: dict[str, str], name: str) -> Callable[[Path], None]:
    text = "".join(",".join(cells) + "\n" for cells in (list(row), list(row.values())))
    return lambda folder: (folder / name).write_text(text + text.splitlines()[1] + "\n")  # type: ignore[return-value]


def read_groups(file: Path) -> object:
    from lc_pytorch.datasets.identity_table import IdentityTable

    table = IdentityTable(file)
    return table.lookup_for([(file.parent / "a.jpg", "a.jpg")])


def read_faces(file: Path) -> object:
    from lc_pytorch.faces.face_table import read_face_table

    return read_face_table(file)


def read_pairs(file: Path) -> object:
    from lipsync.sync.pair_task import plan_pairs

    return plan_pairs(file)


def score_pairs(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    return "lipsync/inference", ["--batch", folder / "pairs.csv", "--output_dir", out, "--workers", 0]


def read_people(file: Path) -> object:
    from lc_pytorch.evaluation.metadata import load_metadata

    return load_metadata(file)


def read_crops(file: Path) -> object:
    from emotion.data.audit import audit_split, read_samples

    return audit_split(read_samples(file, "train"))


def make_class_folder(folder: Path) -> None:
    from facevox.files import write_image

    for name in ("joy", "sad"):
        write_image(folder / "train" / name / "a.jpg", _picture())
    row = {"crop": "train/joy/a.jpg", "status": "done", "split": "train", "class": "joy", "person": "1",
           "gender": "f", "age": "30", "vote_a": "joy", "vote_b": "sad", "vote_c": "joy"}  # fmt: skip
    write_csv(row, "crops.csv")(folder)


def read_class_folder(file: Path) -> object:
    from emotion.data.samples import read_samples

    return read_samples(file.parent / "train", ["joy", "sad"], what="DATA_DIR_TRAIN").people


def read_matched(file: Path) -> object:
    from lc_pytorch.datasets.matched_files import iter_matched_file

    return list(iter_matched_file(file))


def make_manifest(folder: Path) -> None:
    from batch_jobs import Upper, config_of, items_of

    from facevox.batch import run_batch

    (folder / "in").mkdir()
    for name in ("a", "b"):
        (folder / "in" / name).write_text(name)
    for index in range(2):
        run_batch(
            Upper(), items_of(folder / "in"), config_of(folder / "out", num_shards=2, shard_index=index)
        )


def read_manifests(file: Path) -> None:
    from batch_jobs import Upper, config_of, items_of

    from facevox.batch import run_batch
    from facevox.manifest import read_manifest
    from facevox.shards import merge_manifests

    folder = file.parent.parent
    list(read_manifest(folder, "upper"))
    run_batch(Upper(), items_of(folder.parent / "in"), config_of(folder, num_shards=2, shard_index=0))
    merge_manifests(folder, "upper")


def merge(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    return "preprocessing/merge_manifests", ["--output_dir", folder / "out"]


def make_clips_manifest(folder: Path) -> None:
    from facevox.manifest import make_header, manifest_file, write_manifest

    row = {"video": "a.mp4", "clip_file": "a.npz", "speaker": "anna"}
    record = {"item": "a.mp4", "status": "done", "reason": "", "outputs": [["a.npz", 3]], "rows": [row]}
    record |= {"seconds": 0.1, "fingerprint": [1, 2], "at": 5.0}
    header = make_header(
        "data_processing", {"data": {"x": 1}}, "manifest.csv", ["video", "clip_file", "speaker"], "video"
    )
    write_manifest(manifest_file(folder, "data_processing"), header, [record])


def read_clips_manifest(file: Path) -> object:
    from lipsync.network.takes import list_clips

    return list_clips(file.parent.parent)


def make_landmark_report(folder: Path) -> None:
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    report = {"balanced_accuracy": score, "interval_over": "people", "chance_balanced_accuracy": 0.5}
    (folder / "evaluation").mkdir()
    write_json(report | {"pictures": 3, "people": 2}, "evaluation/report.json")(folder)


def read_landmark_report(file: Path) -> object:
    from emotion.landmarks.run import describe_result

    return describe_result(file.parent.parent)


def make_results(folder: Path) -> None:
    make_face_voice(folder)
    score = {"value": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}
    results = {"warnings": ["few people"], "tested": {"origin": "test part"}, "face to voice": {"auc": score}}
    write_json(results, "model/evaluation_results.json")(folder)
    write_json([{"epoch": 1, "val_auc": 0.5}, {"epoch": 2, "val_auc": None}], "model/history.json")(folder)


def read_card(file: Path) -> None:
    from lc_pytorch.evaluation.model_card import write_model_card

    write_model_card(file.parent)


def make_lock(folder: Path) -> None:
    import socket

    from facevox import locks

    here = {"host": socket.gethostname(), "boot": locks._boot_id(), "namespace": locks._pid_namespace()}
    write_json({**here, "token": "a", "pid": 4_000_000, "started": "5"}, "train.lock")(folder)


def read_lock(file: Path) -> None:
    from facevox.locks import OutputLock

    with OutputLock(file, stale_after_s=-1.0):
        pass


# --- models ----------------------------------------------------------------------------------------------


def make_classifier(folder: Path) -> None:
    from small_classifier import write_small_classifier

    from facevox.files import write_image

    write_small_classifier(folder)
    write_image(folder / "face.jpg", _picture(64))


def read_classifier(file: Path) -> object:
    from emotion.live.analysis import Classifier

    classifier = Classifier(file)
    classifier.predict(np.zeros((2, classifier.img_size, classifier.img_size, 3), np.uint8))
    return classifier.class_names, classifier.img_size, classifier.crop_margin


def make_description(folder: Path) -> None:
    from small_classifier import about

    write_json(about(), "about.json")(folder)


def read_description(file: Path) -> None:
    from small_classifier import write_small_classifier

    from emotion.data.boxes import Box
    from emotion.data.crops import cut_square, square_around
    from emotion.live.analysis import Classifier
    from emotion.live.face_log import face_columns

    classifier = Classifier(write_small_classifier(file.parent, plain_values(file)))
    square = square_around(Box(8.0, 8.0, 24.0, 24.0), classifier.crop_margin)
    cut_square(_picture(), square, classifier.img_size)
    face_columns(classifier.class_names)


def plain_values(file: Path) -> Any:
    """The values of a changed JSON file that another file is made with."""
    try:
        return json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except (ValueError, RecursionError):
        raise UserError("no JSON") from None


def make_values(make: Callable[[Path], object], name: str, *tensors: str) -> Callable[[Path], None]:
    """Writes `values.json`, the values of a checkpoint without its tensors."""

    def make_file(folder: Path) -> None:
        from facevox.training.checkpoint import load_checkpoint

        make(folder)
        content = load_checkpoint(folder / name)
        write_json({key: value for key, value in content.items() if key not in tensors}, "values.json")(
            folder
        )

    return make_file


def read_values(read: Callable[[Path], object], name: str, *tensors: str) -> Callable[[Path], object]:
    """Reads a checkpoint with the changed values and its own tensors."""

    def read_file(file: Path) -> object:
        from facevox.training.checkpoint import load_checkpoint, save_checkpoint

        values, checkpoint = plain_values(file), file.parent / name
        if not isinstance(values, dict):
            raise UserError("no dictionary")
        content = load_checkpoint(checkpoint)
        save_checkpoint(checkpoint, {key: content[key] for key in tensors} | values)
        return read(checkpoint)

    return read_file


def make_onnx(folder: Path) -> None:
    import face_models

    face_models.make_onnx(folder / "face.onnx", own_normalisation=True)


def read_onnx(file: Path) -> None:
    from lc_pytorch.faces.embedders import make_embedder

    embedder = make_embedder(file, device="cpu")
    width, height = embedder.input_size
    embedder.embed([np.zeros((height, width, 3), np.uint8)])


def make_checkpoint(folder: Path) -> None:
    import test_damaged_bytes

    test_damaged_bytes.make_checkpoint(folder / "x.pth")


def read_checkpoint(file: Path) -> object:
    from facevox.training.checkpoint import load_checkpoint

    return load_checkpoint(file)


def make_training(folder: Path) -> None:
    from test_damaged_states import trainer

    trainer(folder, num_epochs=2).run()


def resume_training(file: Path) -> None:
    from test_damaged_states import trainer

    trainer(file.parent).run()


def make_landmark_model(folder: Path) -> None:
    import torch

    from emotion.landmarks import network
    from emotion.landmarks.features import Features

    torch.manual_seed(0)
    model = network.LandmarkModel(
        network=network.LandmarkNetwork(2).eval(),
        class_names=("a", "b"),
        features=Features(),
        temperature=2.5,
        notes={"x": 1},
    )
    network.save_model(folder / "model.pth", model)
    make_picture("face.jpg")(folder)


def read_landmark_model(file: Path) -> object:
    from emotion.landmarks.network import load_model

    model = load_model(file)
    return model.network, model.class_names, model.temperature


def predict_landmarks(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    options = ["--output_dir", out, "--model", folder, "--workers", 0, "--log_dir", out / "logs"]
    return "emotion/landmarks/predict", ["--inputs", folder / "face.jpg", *options]


def make_lipsync_model(folder: Path) -> None:
    import torch

    from lipsync.network.estimator import SavedModel, save_model
    from lipsync.network.model import LipSyncNetwork, NetworkConfig
    from lipsync.sync.posterior import SyncCalibration

    torch.manual_seed(0)
    network = LipSyncNetwork(NetworkConfig(visual_frontend="lip_landmarks", temporal="lstm", hidden_dim=8))
    calibration = SyncCalibration(sharpness=0.5, weight=0.9, bias=-0.5, spread_ms=7.0)
    save_model(
        folder / "best_model.pth",
        SavedModel(network=network, ridge=None, calibration=calibration, settings={"x": 1}),
    )
    make_video(folder)


def read_lipsync_model(file: Path) -> object:
    from lipsync.network.estimator import NetworkEstimator, load_method

    method = load_method(file)
    assert isinstance(method.estimator, NetworkEstimator)
    return method.estimator.network, method.calibration


def score(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    options = ["--checkpoint", folder / "best_model.pth", "--score-only"]
    return "lipsync/inference", ["--video", folder / "in" / "talk.mp4", *options]


def make_face_voice(folder: Path) -> None:
    from tiny_trained_model import write_model, write_people

    people = [f"p{number}" for number in range(6)]
    write_model(folder / "model", people, 2)
    write_people(folder, people, clips=1)


def read_face_voice(file: Path) -> object:
    from lc_pytorch.models.store import load_model

    trained = load_model(file.parent)
    return trained.model


def match(folder: Path, out: Path) -> tuple[str, Sequence[object]]:
    files = ["--face", folder / "faces" / "p0" / "0.png", "--voices", folder / "voices"]
    options = ["--device", "cpu", "--num_workers", 0, "--output_file", out / "match.csv"]
    return "evaluation/match", ["--model_dir", folder / "model", *files, *options]


def make_encoders(folder: Path) -> None:
    from small_training import write_encoders

    write_encoders(folder)


def read_face_encoder(file: Path) -> object:
    from lc_pytorch.datasets.transforms import create_data_transforms
    from lc_pytorch.models.encoders import load_face_encoder

    create_data_transforms(file.parent, None)
    return load_face_encoder(file.parent)


def read_voice_encoder(file: Path) -> object:
    from lc_pytorch.datasets.transforms import create_data_transforms
    from lc_pytorch.models.encoders import load_voice_encoder

    create_data_transforms(None, file.parent)
    return load_voice_encoder(file.parent)


def make_backbone(folder: Path) -> None:
    from small_emotion_training import small_network

    small_network().save_weights(folder / "x.weights.h5")


def read_backbone(file: Path) -> object:
    from small_emotion_training import small_network

    from emotion.classifier.pretrained import load_backbone

    network = small_network()
    load_backbone(network, str(file))
    return network.get_weights()


GROUPS = {"file": "a.jpg", "group": "1", "representative": "a.jpg", "status": "done"}
CROPS = {"crop": "a.jpg", "status": "done", "split": "train", "class": "joy", "person": "1", "burst": "1"}
TARGETS = (
    Target("video", "mp4", LIGHT, "in/talk.mp4", make_video, read_video, extract("extract_voices")),
    Target("video with faces", "mp4", LIGHT, "in/talk.mp4", make_video, read_video, extract("extract_faces")),
    Target("video to correct", "mp4", LIGHT, "in/talk.mp4", make_video, read_video, shift_video),
    Target("sound", "wav", LIGHT, "in/talk.wav", make_wav, read_wav, extract("extract_voices")),
    Target("JPEG", "jpg", LIGHT, "face.jpg", make_picture("face.jpg"), read_picture, None, CUTS),
    Target("PNG", "png", LIGHT, "face.png", make_picture("face.png"), read_picture, None, CUTS),
    Target("HEIC", "heic", LIGHT, "face.heic", make_picture("face.heic"), read_picture, None, CUTS),
    Target("archive of pictures", "zip", LIGHT, "in.zip", make_archive, read_archive, extract_landmarks),
    Target(
        "shard of landmarks",
        "npy",
        LIGHT,
        "landmarks/shards/000.npy",
        make_landmarks,
        read_landmarks,
        None,
        CUTS,
    ),
    Target("spectrogram", "npy", LIGHT, "mel.npy", make_mel("mel.npy"), read_spectrogram, None, CUTS),
    Target(
        "pickled spectrogram",
        "pickle",
        LIGHT,
        "mel.pickle",
        make_mel("mel.pickle"),
        read_spectrogram,
        None,
        CUTS,
    ),
    Target("clip", "npz", LIGHT, "clip.npz", make_clip, read_clip, None, CONTENT),
    Target("state of the classifier", "npz", LIGHT, "state.npz", make_state, read_state, None, CONTENT),
    Target("vectors of faces", "bin", LIGHT, "vectors-0.bin", make_vectors, read_vectors),
    Target(
        "split",
        "json",
        LIGHT,
        "file.json",
        write_json({"train": PEOPLE[:1], "val": PEOPLE[1:2], "test": PEOPLE[2:], "seed": 1}),
        read_split,
        None,
        CUTS,
    ),
    Target(
        "HQ split",
        "json",
        LIGHT,
        "file.json",
        write_json({"vox1": {"train": PEOPLE, "val": [], "test": []}, "format": 1}),
        read_hq_split,
        None,
        CUTS,
    ),
    Target("identities", "json", LIGHT, "file.json", make_identities, read_identities),
    Target(
        "plan of a grouping", "json", LIGHT, "out/manifests/deduplicate_faces.plan.json", make_plan, read_plan
    ),
    Target(
        "record",
        "json",
        LIGHT,
        "20260101-000000-good-0001/record.json",
        make_records,
        read_records,
        show_status,
    ),
    Target(
        "state of a job", "json", LIGHT, "20260101-000000-good-0001/state-0.json", make_records, read_records
    ),
    Target("history", "json", LIGHT, "out/history.json", make_records, read_records, show_status),
    Target("lock", "json", LIGHT, "train.lock", make_lock, read_lock),
    Target(
        "report of landmarks",
        "json",
        TORCH,
        "evaluation/report.json",
        make_landmark_report,
        read_landmark_report,
    ),
    Target("results of a model", "json", TORCH, "model/evaluation_results.json", make_results, read_card),
    Target("history of a model", "json", TORCH, "model/history.json", make_results, read_card),
    Target("config for a card", "json", TORCH, "model/config.json", make_results, read_card),
    Target("pipeline", "yaml", LIGHT, "pipeline.yaml", make_pipeline, read_pipeline, show_pipeline),
    Target(
        "settings of lipsync",
        "yaml",
        LIGHT,
        "config.yaml",
        copy_of("lipsync/config.yaml"),
        read_lipsync_settings,
        process_clips,
    ),
    Target("settings of emotion", "env", LIGHT, ".env.example", copy_of(".env.example"), read_env),
    Target("groups", "csv", LIGHT, "groups.csv", write_csv(GROUPS, "groups.csv"), read_groups),
    Target(
        "faces",
        "csv",
        LIGHT,
        "faces.csv",
        write_csv({"face_file": "a.jpg", "confidence": "1"}, "faces.csv"),
        read_faces,
    ),
    Target(
        "pairs",
        "csv",
        LIGHT,
        "pairs.csv",
        write_csv({"video": "a.mp4", "audio": "a.wav"}, "pairs.csv"),
        read_pairs,
        score_pairs,
    ),
    Target(
        "people",
        "csv",
        LIGHT,
        "people.csv",
        write_csv({"id": "id1", "gender": "f", "nationality": "kr"}, "people.csv"),
        read_people,
    ),
    Target("crops", "csv", LIGHT, "crops.csv", write_csv(CROPS, "crops.csv"), read_crops),
    Target("votes", "csv", LIGHT, "crops.csv", make_class_folder, read_class_folder),
    Target("index of landmarks", "csv", LIGHT, "landmarks/index.csv", make_landmarks, read_landmarks),
    Target(
        "matched file",
        "csv",
        LIGHT,
        "matched.txt",
        lambda folder: (folder / "matched.txt").write_text("a.jpg\ta.wav\nb.jpg\tb.wav\n"),
        read_matched,
    ),
    Target(
        "manifest",
        "jsonl",
        LIGHT,
        "out/manifests/upper.shard-0000-of-0002.jsonl",
        make_manifest,
        read_manifests,
        merge,
    ),
    Target(
        "manifest of clips",
        "jsonl",
        LIGHT,
        "manifests/data_processing.jsonl",
        make_clips_manifest,
        read_clips_manifest,
    ),
    Target(
        "classifier",
        "tflite",
        LIGHT,
        "emotion_classifier_5_classes.tflite",
        make_classifier,
        read_classifier,
        predict,
    ),
    Target("description of the classifier", "json", LIGHT, "about.json", make_description, read_description),
    Target("face model", "onnx", LIGHT, "face.onnx", make_onnx, read_onnx),
    Target("checkpoint", "pth", TORCH, "x.pth", make_checkpoint, read_checkpoint, None, CONTENT),
    Target("state of a training", "pth", TORCH, "last.pth", make_training, resume_training),
    Target(
        "landmark model",
        "pth",
        TORCH,
        "model.pth",
        make_landmark_model,
        read_landmark_model,
        predict_landmarks,
        CONTENT,
    ),
    Target(
        "lip-sync model",
        "pth",
        TORCH,
        "best_model.pth",
        make_lipsync_model,
        read_lipsync_model,
        score,
        CONTENT,
    ),
    Target(
        "values of a landmark model",
        "json",
        TORCH,
        "values.json",
        make_values(make_landmark_model, "model.pth", "network"),
        read_values(read_landmark_model, "model.pth", "network"),
    ),
    Target(
        "values of a lip-sync model",
        "json",
        TORCH,
        "values.json",
        make_values(make_lipsync_model, "best_model.pth", "model"),
        read_values(read_lipsync_model, "best_model.pth", "model"),
    ),
    Target(
        "values of a training",
        "json",
        TORCH,
        "values.json",
        make_values(make_training, "last.pth", "model", "optimizer", "random"),
        read_values(resume_training, "last.pth", "model", "optimizer", "random"),
    ),
    Target(
        "face-voice weights",
        "pth",
        TORCH,
        "model/best_model.pth",
        make_face_voice,
        read_face_voice,
        match,
        CONTENT,
    ),
    Target("config of a model", "json", TORCH, "model/config.json", make_face_voice, read_face_voice, match),
    Target("config of a face encoder", "json", TORCH, "vit/config.json", make_encoders, read_face_encoder),
    Target(
        "config of a voice encoder", "json", TORCH, "wav2vec2/config.json", make_encoders, read_voice_encoder
    ),
    Target(
        "preprocessing of faces",
        "json",
        TORCH,
        "vit/preprocessor_config.json",
        make_encoders,
        read_face_encoder,
    ),
    Target(
        "preprocessing of voices",
        "json",
        TORCH,
        "wav2vec2/preprocessor_config.json",
        make_encoders,
        read_voice_encoder,
    ),
    Target(
        "weights of an encoder",
        "safetensors",
        TORCH,
        "vit/model.safetensors",
        make_encoders,
        read_face_encoder,
        None,
        CUTS,
    ),
    Target("weights of a backbone", "h5", KERAS, "x.weights.h5", make_backbone, read_backbone, None, CUTS),
)
FORMS = tuple(dict.fromkeys(target.form for target in TARGETS))


def load_program(name: str) -> ModuleType:
    """The module of a program."""
    if name.startswith(("emotion/", "lipsync/")):
        return importlib.import_module(name.replace("/", "."))  # its workers import it too
    from conftest import load_script_module

    return load_script_module(name)
