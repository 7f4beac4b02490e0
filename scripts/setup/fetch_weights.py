"""Fetches the real weights ahead of time, so that later runs need no network.

    make weights                                # all of them, about 2.5 GB
    make weights ONLY="Facenet retinaface"      # only these
    .venv/bin/python scripts/setup/fetch_weights.py --list

Every file goes to the folder in which its package expects it: DeepFace's to $DEEPFACE_HOME/.deepface/weights,
the Hugging Face hub's to its cache (HF_HOME), Keras' to $KERAS_HOME/models. Without a network each missing
file gets one line that says where to put it by hand. A file that is not weights (empty, cut off, a Git LFS
pointer, a web page) counts as damaged and is fetched again.

Exit codes: 0 all requested weights are there; 1 some downloads failed; 2 bad usage, or no network.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from emotion.classifier.pretrained import FILE_NAME, SERVER, download_imagenet, imagenet_file
from facevox import cli, downloads
from facevox.errors import ExitCode, UserError, one_line
from lc_pytorch.faces.embedders import weight_file
from lc_pytorch.faces.weights import MISSING, require_weights, weights_dir, weights_fault

# The default ids of --face_model and --voice_model.
HUB_MODELS = {"vit": "google/vit-base-patch16-224-in21k", "wav2vec2": "facebook/wav2vec2-base"}
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # the first one that a model has is enough
DETECTORS = ("retinaface", "ssd", "dlib", "yunet")  # the weights of the others are in their packages
EMBEDDERS = ("Facenet", "Facenet512", "VGG-Face", "OpenFace", "DeepID", "ArcFace", "SFace")
NAMES = (*EMBEDDERS, *DETECTORS, *HUB_MODELS, "mobilenetv3")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights to fetch.

    Attributes:
        name: its name for `--only`.
        what: its description, for people.
        place: its path, where it is or has to be put.
        fault: returns `MISSING`, what is damaged, or "" if it is there; needs no network.
        server: it can be fetched if this address answers.
        fetch: downloads it to its path.
    """

    name: str
    what: str
    place: str
    fault: Callable[[], str]
    server: str
    fetch: Callable[[], object]


def get_args_parser() -> argparse.ArgumentParser:
    """The command line of this program."""
    parser = cli.make_parser(__doc__, "python scripts/setup/fetch_weights.py --only Facenet retinaface")
    everything = f"fetch only these (default: all of {', '.join(NAMES)})"
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=everything)
    parser.add_argument(
        "--list", action="store_true", help="say what is there and what is not; fetch nothing"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fetches what is missing; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    selected = [make_weights(name) for name in dict.fromkeys(args.only or NAMES)]
    faults = [weights.fault() for weights in selected]
    if args.list:
        for weights, fault in zip(selected, faults, strict=True):
            state = fault if fault in ("", MISSING) else "damaged"
            reason = f"  ({fault})" if state == "damaged" else ""
            print(f"{state or 'present'}  {weights.name}  {weights.place}{reason}")
        return ExitCode.DONE
    for weights, fault in zip(selected, faults, strict=True):
        if fault != MISSING:
            print(f"{'damaged' if fault else 'present'}: {weights.name} ({fault or weights.place})")
    return fetch_all([weights for weights, fault in zip(selected, faults, strict=True) if fault])


def fetch_all(missing: Sequence[Weights]) -> int:
    """Fetches each of `missing` whose server answers; returns the exit code.

    Raises:
        UserError: nothing could be fetched because no server answers.
    """
    unreachable = _unreachable([weights.server for weights in missing])
    failed = 0
    for weights in missing:
        if weights.server in unreachable:
            print(f"missing: {weights.what}: put it at {weights.place}", file=sys.stderr)
            failed += 1
            continue
        print(f"fetching {weights.what}", flush=True)
        try:
            weights.fetch()
        except Exception as error:  # one that fails must not keep the others from being fetched
            print(f"failed: {weights.what}: {one_line(error)}; put it at {weights.place}", file=sys.stderr)
            failed += 1
        else:
            print(f"fetched: {weights.name} ({weights.place})")
    if missing and all(weights.server in unreachable for weights in missing):
        raise UserError(
            f"no network: {len(missing)} not fetched; fetch them where there is a network and copy "
            "them to the places above"
        )
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE


def _unreachable(servers: Sequence[str]) -> set[str]:
    """Those of `servers` that do not answer; all are asked at the same time, within seconds."""
    different = list(dict.fromkeys(servers))
    if not different:
        return set()
    with ThreadPoolExecutor(len(different)) as pool:
        return {
            server
            for server, is_up in zip(different, pool.map(downloads.answers, different), strict=True)
            if not is_up
        }


def make_weights(name: str) -> Weights:
    """The entry of one of NAMES."""
    if name in HUB_MODELS:
        return _hub_weights(name)
    if name == "mobilenetv3":
        return _keras_weights()
    return _deepface_weights(name)


def _deepface_weights(name: str) -> Weights:
    if name in DETECTORS:
        from lc_pytorch.faces.detectors import WEIGHTS  # imports OpenCV

        files, kind = WEIGHTS[name], "detector"
    else:
        files, kind = (weight_file(name),), "embedding model"
    paths = [weights_dir() / file.name for file in files]
    return Weights(
        name=name,
        what=f"DeepFace {kind} {name}",
        place=", ".join(str(path) for path in paths),
        fault=lambda: _first_fault(paths),
        server=files[0].urls[0],
        fetch=lambda: require_weights(files, f"{kind} {name}"),
    )


def _first_fault(paths: Sequence[Path]) -> str:
    faults = {path.name: weights_fault(path) for path in paths}
    damaged = [f"{name} is {fault}" for name, fault in faults.items() if fault not in ("", MISSING)]
    return damaged[0] if damaged else MISSING if MISSING in faults.values() else ""


def _hub_weights(name: str) -> Weights:
    model = HUB_MODELS[name]
    server = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    option = "--face_model" if name == "vit" else "--voice_model"

    from huggingface_hub import constants

    def fault() -> str:
        from huggingface_hub import try_to_load_from_cache

        cached = {file: try_to_load_from_cache(model, file) for file in ("config.json", *HUB_FILES)}
        paths = {file: Path(path) for file, path in cached.items() if isinstance(path, str)}
        if "config.json" not in paths or len(paths) == 1:
            return MISSING
        return _first_fault(list(paths.values())[:2])

    def fetch() -> None:
        from huggingface_hub import HfApi, snapshot_download

        files = set(HfApi().list_repo_files(model))
        weights = next((file for file in HUB_FILES if file in files), None)
        if weights is None:
            raise UserError(f"{model} has none of {', '.join(HUB_FILES)}")
        is_damaged = fault() not in ("", MISSING)
        patterns = ["*.json", "*.txt", weights]
        snapshot_download(model, allow_patterns=patterns, force_download=is_damaged)

    return Weights(
        name=name,
        what=f"Hugging Face model {model}",
        place=f"the hub's cache {constants.HF_HUB_CACHE}, or any folder that {option} names",
        fault=fault,
        server=server,
        fetch=fetch,
    )


def _keras_weights() -> Weights:
    def fetch() -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        download_imagenet()

    path = imagenet_file()
    return Weights(
        name="mobilenetv3",
        what="Keras MobileNetV3Large (ImageNet)",
        place=str(path),
        fault=lambda: _first_fault([path]),
        server=SERVER + FILE_NAME,
        fetch=fetch,
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
