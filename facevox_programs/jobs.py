"""The programs that can be submitted to a cluster, as `facevox.cluster` takes them."""

from pathlib import Path

from facevox.cluster.jobs import ProgramTable

_HERE = Path(__file__).resolve().parent
# An installed package has the scripts inside; in a checkout they are beside it.
_SCRIPTS = "facevox_programs/scripts" if (_HERE / "scripts").is_dir() else "scripts"

# The name of the job, and the path of its program. The program itself says the rest, by its JOB.
PROGRAMS = {
    "extract_faces": f"{_SCRIPTS}/preprocessing/extract_faces.py",
    "extract_voices": f"{_SCRIPTS}/preprocessing/extract_voices.py",
    "deduplicate_faces": f"{_SCRIPTS}/preprocessing/deduplicate_faces.py",
    "prepare_faces": f"{_SCRIPTS}/preprocessing/prepare_faces.py",
    "create_matched_file": f"{_SCRIPTS}/preprocessing/create_matched_file.py",
    "merge_manifests": f"{_SCRIPTS}/preprocessing/merge_manifests.py",
    "train_face_voice": f"{_SCRIPTS}/training/train_face_voice.py",
    "train_face_voice_from_matched_file": f"{_SCRIPTS}/training/train_face_voice_from_matched_file.py",
    "evaluate": f"{_SCRIPTS}/evaluation/evaluate_face_voice.py",
    "create_hq_split": f"{_SCRIPTS}/hq/create_hq_voxceleb_split.py",
    "convert_mels": f"{_SCRIPTS}/hq/convert_mels.py",
    "train_hq": f"{_SCRIPTS}/hq/train_hq_voxceleb.py",
    "evaluate_hq": f"{_SCRIPTS}/hq/evaluate_hq_voxceleb.py",
    "process_lipsync": "lipsync/data_processing.py",
    "clean_lipsync": "lipsync/clean.py",
    "train_lipsync": "lipsync/train.py",
    "preprocess_emotion": "emotion/preprocess.py",
    "train_emotion": "emotion/main.py",
    "extract_landmarks": "emotion/landmarks/extract.py",
    "train_landmarks": "emotion/landmarks/train.py",
}

TABLE = ProgramTable(files=PROGRAMS, root=_HERE.parent)
