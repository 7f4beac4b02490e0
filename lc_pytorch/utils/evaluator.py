"""Two summary numbers of an evaluation; all the others: `lc_pytorch.utils.metrics`."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from facevox.errors import UserError
from lc_pytorch.utils.metrics import evaluate_embeddings

if TYPE_CHECKING:
    from lc_pytorch.models.face_voice import TwoTowerModel

SECOND_SIDES = ("voice", "mel")


def evaluate_summary_metrics(
    model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]], device: str | torch.device
) -> tuple[float, float]:
    """Share of faces whose most similar voice is of the right person, and the AUC over all pairs.

    Every face of the loader is compared with every voice of it. With several voices of one person, each of
    them is right. Ties count by expectation: a model with the same embedding for everybody scores chance.

    Args:
        model: Has `embed_faces` and `embed_voices` ((B, …) → (B, D) unit vectors). It is put into evaluation
            mode meanwhile, and stays on `device`.
        dataloader: Batches with "face", "voice" (or "mel") and "identity" (integers): those of a
            `DataLoader` over a `FaceVoiceDataset`.
        device: Device of the model.

    Returns:
        (top-1 accuracy face to voice, area under the ROC curve over all face-voice pairs), each 0-1.

    Raises:
        UserError: A batch has no faces, voices or identities, or there are fewer than two identities.
    """
    was_training = model.training
    model.to(device).eval()
    towers = cast("TwoTowerModel", model)
    faces, voices, identities = [], [], []
    try:
        with torch.inference_mode():
            for batch in dataloader:
                second = next((name for name in SECOND_SIDES if name in batch), "voice")
                missing = {"face", second, "identity"} - batch.keys()
                if missing:
                    raise UserError(
                        f"a batch without {' and '.join(sorted(missing))}: face, voice (or mel) and identity "
                        "are expected"
                    )
                faces.append(towers.embed_faces(batch["face"].to(device)).float().cpu())
                voices.append(towers.embed_voices(batch[second].to(device)).float().cpu())
                identities += torch.as_tensor(batch["identity"]).tolist()
    finally:
        model.train(was_training)
    num_identities = len(set(identities))
    if num_identities < 2:
        raise UserError(
            f"{num_identities} identity in the loader: at least two are needed to distinguish people; "
            "FaceVoiceDataset(..., identities=[...]) names them"
        )
    evaluation = evaluate_embeddings(
        torch.cat(faces).numpy(), torch.cat(voices).numpy(), identities, identities, top_k=(1,), choices=(2,)
    )
    top_1 = evaluation.retrieval["face_to_voice", "all"].top_k[1].value
    return float(top_1), float(evaluation.verification["all"].auc.value)
