"""A training step of ViT-Base with Wav2Vec2-Base, compared with the bare forward, backward and optimizer.

    python benchmarks/face_voice_training.py    # CPU: batch 4, 5 s of voice, data in memory
    python benchmarks/face_voice_training.py --device cuda --precision bf16 --batch_size 64    # on a GPU

The encoders have the sizes of the real ones and random weights. Both steps see the same batches, in turn; the
bare one is the obvious code: forward, InfoNCE over the batch, backward, AdamW. On a GPU also pairs/s
and the share of the peak of matrix products that they come to (MFU).
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facevox import cli
from facevox.errors import ExitCode
from facevox_demo.figures import Figure, print_figures, write_figures

if TYPE_CHECKING:
    import torch

BAR = 1.15
# Dense bf16 peaks in TFLOP/s, from the makers' data sheets.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L4": 121.0, "4090": 165.0, "3090": 71.0}


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this benchmark."""
    parser = cli.make_parser(__doc__, "python benchmarks/face_voice_training.py")
    parser.add_argument("--batch_size", type=cli.positive_int, default=4, help="pairs")
    parser.add_argument(
        "--audio_duration_sec", type=cli.positive_float, default=5.0, help="of voice, seconds"
    )
    parser.add_argument("--num_steps", type=cli.positive_int, default=5, help="timed steps of each kind")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the encoders")
    parser.add_argument("--compile", action="store_true", help="compile the encoders of both")
    parser.add_argument("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def make_model() -> Any:
    """ViT-Base and Wav2Vec2-Base with random weights."""
    from transformers import ViTConfig, Wav2Vec2Config

    from lc_pytorch.models import FaceVoiceModel
    from lc_pytorch.models.encoders import build_encoder

    configs = [ViTConfig().to_dict(), Wav2Vec2Config().to_dict()]
    face, voice = (build_encoder(config) for config in configs)
    return FaceVoiceModel(face_model=face, voice_model=voice)


def make_batches(args: argparse.Namespace, count: int) -> "list[dict[str, torch.Tensor]]":
    """Batches in memory, as the loader gives them."""
    import torch

    generator = torch.Generator().manual_seed(0)
    size, samples = args.batch_size, round(args.audio_duration_sec * 16000)
    return [
        {
            "face": torch.randn(size, 3, 224, 224, generator=generator),
            "voice": torch.randn(size, samples, generator=generator),
            "identity": torch.arange(size),
            "index": torch.arange(size),
            "used_index": torch.arange(size),
        }
        for _ in range(count)
    ]


def make_bare_step(model: Any, args: argparse.Namespace, device: "torch.device") -> Any:
    """The obvious training step, without checks."""
    import torch
    import torch.nn.functional as F

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)

    def step(batch: "dict[str, torch.Tensor]") -> float:
        faces, voices = (batch[name].to(device, non_blocking=True) for name in ("face", "voice"))
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            face_BD, voice_BD = model(faces, voices)
        logits_BB = face_BD @ voice_BD.T / 0.07
        labels_B = torch.arange(len(faces), device=device)
        loss = (F.cross_entropy(logits_BB, labels_B) + F.cross_entropy(logits_BB.T, labels_B)) / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def make_our_step(model: Any, args: argparse.Namespace, device: "torch.device", folder: Path) -> Any:
    """The step of the trainer: with clipping, checks, and agreement between processes."""
    from facevox.training.batches import EpochBatches
    from facevox.training.distributed import World
    from facevox.training.trainer import Trainer, TrainerConfig
    from lc_pytorch.training.options import TrainConfig
    from lc_pytorch.training.task import ContrastiveTask

    config = TrainConfig(save_dir=folder, batch_size=max(args.batch_size, 2), precision=args.precision)
    world = World(device=device)
    task = ContrastiveTask(model, "voice", config, world, None, lambda is_best: None)
    batches = EpochBatches(1000, args.batch_size, seed=0)
    settings = TrainerConfig(
        save_dir=folder,
        num_epochs=10,
        learning_rate=1e-4,
        warmup=config.warmup,
        clip_norm=config.clip_norm,
        checkpoint_interval=config.checkpoint_interval,
        save_interval=config.save_interval,
    )
    return Trainer(task, batches, [], settings, world).take_step


def time_steps(
    steps: dict[str, Any], batches: Sequence[Any], num_steps: int, device: Any
) -> dict[str, float]:
    """Median seconds of each kind of step, taken in turn."""
    import torch

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(num_steps + 1):
        for name, step in steps.items():
            start_s = time.perf_counter()
            step(batches[number % len(batches)])
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first one allocates, and compiles
                seconds[name].append(time.perf_counter() - start_s)
    return {name: statistics.median(values) for name, values in seconds.items()}


def count_flops(model: Any, batch: "dict[str, torch.Tensor]") -> float:
    """Floating point operations of one pair, forward and backward, as torch counts matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        face_BD, voice_BD = model(batch["face"][:1], batch["voice"][:1])
        (face_BD * voice_BD).sum().backward()
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    import torch

    from facevox.training import distributed

    device = distributed.init(args.device).device
    torch.manual_seed(0)
    batches = make_batches(args, 2)
    flops = count_flops(make_model(), batches[0])
    with tempfile.TemporaryDirectory() as folder:
        models = [make_model().to(device).train() for _ in range(2)]
        if args.compile:
            for model in models:
                for encoder in model.encoders():
                    encoder.compile(dynamic=False)
        steps = {
            "bare": make_bare_step(models[0], args, device),
            "ours": make_our_step(models[1], args, device, Path(folder)),
        }
        seconds = time_steps(steps, batches, args.num_steps, device)
    figures = [
        Figure(
            "training step against bare forward, backward, optimizer",
            seconds["ours"] / seconds["bare"],
            "x",
            BAR,
            is_better_higher=False,
        ),
        Figure(
            f"seconds of a step of {args.batch_size} pairs",
            seconds["ours"],
            "s",
            is_better_higher=False,
            is_comparable=False,
        ),
        Figure("pairs per second", args.batch_size / seconds["ours"], "pairs/s", is_comparable=False),
        Figure("of one pair, forward and backward", flops / 1e9, "GFLOP"),
    ]
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak = next((value for key, value in PEAK_TFLOPS.items() if key in name), None)
        if peak:
            share = flops * args.batch_size / seconds["ours"] / (peak * 1e12)
            figures.append(Figure(f"share of the bf16 peak of {name}", share, "", is_comparable=False))
        memory = torch.cuda.max_memory_allocated(device) / 1e9
        figures.append(
            Figure("GPU memory, both models", memory, "GB", is_better_higher=False, is_comparable=False)
        )
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
