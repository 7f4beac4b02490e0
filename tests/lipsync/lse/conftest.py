"""Weights of SyncNet's layout that know nothing: whatever they score means nothing."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lipsync.lse.network import SyncNet


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the format of the published one (before torch 1.6), with uneven means and variances."""
    generator = torch.Generator().manual_seed(0)
    network = SyncNet()
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            for values, low, high in (
                (layer.running_mean, -1, 1),
                (layer.running_var, 0.5, 2),
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -1, 1),
            ):
                assert values is not None
                values.uniform_(low, high, generator=generator)
    path = tmp_path_factory.mktemp("syncnet") / "random.model"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    return path
