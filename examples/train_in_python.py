r"""The Python API in one page: pairs, data set, model, a short training loop, two scores.

    python examples/train_in_python.py --image_folder faces --audio_folder voices \
        --face_model vit-tiny --voice_model wav2vec2-tiny --from_scratch

For real trainings use scripts/training/train_face_voice.py, which also resumes, splits the people, runs on
many GPUs and keeps everything. Here a fifth of the people is held out and the last numbers are theirs.
"""

import argparse
import sys
from collections.abc import Sequence

from facevox import cli


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this example."""
    parser = cli.make_parser(
        __doc__, "python examples/train_in_python.py --image_folder faces --audio_folder voices"
    )
    parser.add_argument("--image_folder", required=True, metavar="DIR", help="faces")
    parser.add_argument(
        "--audio_folder", required=True, metavar="DIR", help="voices, with the paths of the faces"
    )
    parser.add_argument("--face_model", default="google/vit-base-patch16-224-in21k", help="hub id or folder")
    parser.add_argument("--voice_model", default="facebook/wav2vec2-base", help="hub id or folder")
    parser.add_argument("--from_scratch", action="store_true", help="random weights")
    parser.add_argument("--num_epochs", type=cli.positive_int, default=2, help="passes over the pairs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and scores; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    import torch
    from torch.utils.data import DataLoader

    from lc_pytorch.datasets import FaceVoiceDataset, create_data_transforms, list_folder_pairs
    from lc_pytorch.datasets.splits import select_items, split_identities
    from lc_pytorch.losses import symmetric_info_nce
    from lc_pytorch.models import FaceVoiceModel
    from lc_pytorch.utils.evaluator import evaluate_summary_metrics

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    listing = list_folder_pairs(args.image_folder, args.audio_folder)
    split = split_identities(listing.identities, test_size=0.2, val_size=0.0, seed=0)
    image_transform, processor = create_data_transforms(args.face_model, args.voice_model)
    sets = {
        part: FaceVoiceDataset(
            [listing.pairs[row] for row in select_items(split, listing.identities, part)],
            processor,
            image_transform,
            audio_duration_sec=1.0,
        )
        for part in ("train", "test")
    }
    model = FaceVoiceModel(
        face_model=args.face_model, voice_model=args.voice_model, pretrained=not args.from_scratch
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for epoch in range(args.num_epochs):
        for batch in DataLoader(sets["train"], batch_size=16, shuffle=True, drop_last=True):
            face_BD, voice_BD = model(batch["face"].to(device), batch["voice"].to(device))
            loss = symmetric_info_nce(face_BD, voice_BD, batch["identity"], model.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.3f}")
    top1, auc = evaluate_summary_metrics(model, DataLoader(sets["test"], batch_size=16), device)
    print(f"{len(split.test)} people never seen: top-1 {top1:.3f}, AUC {auc:.3f} (chance 0.5)")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
