"""A tiny model and a running server that many tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer
from small_classifier import write_small_classifier


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_classifier(tmp_path_factory.mktemp("small model"))


@pytest.fixture(scope="session")
def server(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Server with the limits of .env.example, except for short uploads and many clients of one address."""
    options = ("--max_upload_bytes", "3000000", "--max_video_s", "4", "--max_connections_per_address", "200")
    with LiveServer(tmp_path_factory.mktemp("server"), model_path.parent, *options) as running:
        yield running
