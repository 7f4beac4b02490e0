"""The images, built once for all tests of this folder."""

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from image_tool import ImageTool, start_or_skip


@pytest.fixture(scope="session")
def image_tool(load_script: Callable[[str], ModuleType]) -> Iterator[ImageTool]:
    """Tool that builds images and runs containers; the tests are skipped where that cannot be."""
    tool = start_or_skip(load_script("setup/install").read_pip_settings())
    yield tool
    tool.close()


def _build(tool: ImageTool, dockerfile: str, name: str, **arguments: str) -> str:
    image = f"localhost/{name}:test"
    seconds = tool.build(dockerfile, image, **arguments)
    print(f"{name}: built in {seconds:.0f} s, {tool.size_gb(image):.2f} GB")
    return image


@pytest.fixture(scope="session")
def facevox_image(image_tool: ImageTool) -> str:
    """The torch side, for CPUs."""
    return _build(image_tool, "docker/facevox.Dockerfile", "facevox")


@pytest.fixture(scope="session")
def emotion_image(image_tool: ImageTool) -> str:
    """The TensorFlow side, for CPUs."""
    return _build(image_tool, "docker/emotion.Dockerfile", "facevox-emotion")


@pytest.fixture(scope="session")
def server_image(image_tool: ImageTool) -> str:
    """The server alone."""
    return _build(image_tool, "docker/emotion.Dockerfile", "facevox-server", EXTRAS="emotion-server")
