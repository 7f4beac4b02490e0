"""A small face embedder trained on example people, for the demo alone.

No face-embedding weights come with the packages, and the demo downloads nothing. This one tells the people of
the example data apart; it has never seen a real person and is no default anywhere.
"""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from facevox.files import replacing, write_json
from facevox_demo.example.face_pictures import SIZE_PX, load_pictures
from facevox_demo.options import DemoEmbedderConfig
from lc_pytorch.faces.grouping import bcubed_f1, group_faces
from lc_pytorch.faces.onnx_models import METADATA_KEY

PREPROCESSING = "insightface"  # (x - 127.5) / 127.5


def make_network(embedding_dim: int) -> nn.Sequential:
    """The network: (B, 3, 112, 112) → (B, embedding_dim), 0.3 million weights."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        nn.AvgPool2d(2),  # always first: `train` does it once for all epochs
        *block(3, 24),
        *block(24, 48),
        *block(48, 96),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(96 * 7 * 7, embedding_dim),
    )


def _batches(
    images: NDArray[np.float32], labels: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches: mirror image, brightness, a shift by a few pixels."""
    order = rng.permutation(len(images))
    # A last batch of less than half the size is left out; `train` counts its steps in the same way.
    for start in range(0, len(order) - size // 2, size):
        chosen = order[start : start + size]
        batch = images[chosen]
        mirrored = rng.random(len(chosen)) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
        batch = batch * rng.uniform(0.8, 1.2, (len(chosen), 1, 1, 1)).astype(np.float32)
        batch = np.roll(batch, tuple(rng.integers(-2, 3, 2)), axis=(1, 2))
        tensor = torch.from_numpy(np.ascontiguousarray(_normalised(batch)))
        yield tensor, torch.from_numpy(labels[chosen])


def _halved(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) → (N, H / 2, W / 2, 3): what the network's first layer makes of it."""
    count, height, width, _ = images.shape
    parts = images.reshape(count, height // 2, 2, width // 2, 2, 3)
    halved: NDArray[np.float32] = parts.mean(axis=(2, 4), dtype=np.float32)
    return halved


def _normalised(images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, H, W, 3) of 0 to 255 → (B, 3, H, W) as the network takes it."""
    return ((images.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)


def train(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    config: DemoEmbedderConfig,
    report: Callable[[int, float], None] | None = None,
) -> nn.Sequential:
    """Trains on (N, 112, 112, 3) faces and their (N,) people; returns the network in eval mode.

    `report(epoch, mean loss)` is called after each epoch.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = make_network(config.embedding_dim)
    halved = _halved(images)
    centres = torch.nn.Parameter(torch.randn(int(labels.max()) + 1, config.embedding_dim))
    parameters = [*network.parameters(), centres]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=1e-3)
    steps = max((len(images) - config.batch_size // 2) // config.batch_size + 1, 1) * config.num_epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)
    network.train()
    for epoch in range(config.num_epochs):
        losses = []
        for batch, people in _batches(halved, labels, config.batch_size, rng):
            cosine = functional.normalize(network[1:](batch)) @ functional.normalize(centres).T
            targets = functional.one_hot(people, len(centres))
            loss = functional.cross_entropy(config.scale * (cosine - config.margin * targets), people)
            optimizer.zero_grad()
            torch.autograd.backward(loss)  # as loss.backward(), which has no types
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        if report is not None:
            report(epoch + 1, float(np.mean(losses)))
    return network.eval()


def embed(network: nn.Sequential, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 112, 112, 3) faces → (N, D) unit vectors."""
    with torch.inference_mode():
        parts = [
            functional.normalize(network(torch.from_numpy(_normalised(images[start : start + 256])))).numpy()
            for start in range(0, len(images), 256)
        ]
    joined: NDArray[np.float32] = np.concatenate(parts)
    return joined


def choose_threshold(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """(cosine distance, B-cubed F1) of the threshold that groups these people best.

    Among equally good ones the strictest is taken: a larger set has people who stand closer together.
    """
    candidates = np.round(np.arange(0.05, 0.9, 0.025), 3)
    scores = np.array([bcubed_f1(group_faces(embeddings, float(t)), labels) for t in candidates])
    best = np.flatnonzero(scores >= scores.max() - 1e-9)
    return float(candidates[best[0]]), float(scores.max())


def export_onnx(network: nn.Sequential, path: Path) -> None:
    """Writes the network as an ONNX file that `--model_name` takes, with its preprocessing named in it."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The exporter by tracing is marked as old; the new one needs a package that nothing else here does.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, SIZE_PX, SIZE_PX),),
            str(Path(folder, "x.onnx")),
            input_names=["face"],
            output_names=["embedding"],
            dynamic_axes={"face": {0: "batch"}, "embedding": {0: "batch"}},
            dynamo=False,
        )
        model = onnx.load(str(Path(folder, "x.onnx")))
    for key, value in {
        METADATA_KEY: PREPROCESSING,
        "facevox.purpose": "demo: trained on example people, knows no real ones",
    }.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    with replacing(path) as file:
        file.write(model.SerializeToString())


def train_and_export(
    folder: Path, config: DemoEmbedderConfig, report: Callable[[int, float], None] | None = None
) -> dict[str, object]:
    """Trains on the pictures below `folder`, writes `demo_embedder.onnx` and `.json`; returns the latter."""
    images, labels = load_pictures(folder)
    held_out = labels >= config.num_people
    network = train(images[~held_out], labels[~held_out], config, report)
    threshold, f1 = choose_threshold(embed(network, images[held_out]), labels[held_out])
    export_onnx(network, folder / "demo_embedder.onnx")
    facts = {
        "threshold": threshold,
        "held_out_bcubed_f1": round(f1, 4),
        "held_out_people": config.num_held_out,
        "trained_people": config.num_people,
        "pictures": len(images),
        "purpose": "demo only: trained on example people, knows no real ones",
    }
    write_json(folder / "demo_embedder.json", facts)
    return facts
