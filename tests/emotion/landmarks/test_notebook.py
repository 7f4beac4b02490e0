"""The notebook: committed without outputs, running from top to bottom on archives of one variable."""

from pathlib import Path
from typing import Any

import nbformat
import pytest

NAME = "emotion/landmarks/Emotion_Training_MediaPipe.ipynb"


@pytest.fixture
def notebook(repository: Path) -> Any:
    return nbformat.read(repository / NAME, as_version=4)


def test_notebook_is_valid_and_holds_no_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert sum("ZIPS = []" in cell.source.splitlines() for cell in code) == 1


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom_on_given_archives(notebook, aihub_dir, tmp_path, repository):
    from nbclient import NotebookClient

    changes = {
        "ZIPS = []": f"ZIPS = [{str(aihub_dir / 'archives')!r}]",
        "NUM_EPOCHS = 40": "NUM_EPOCHS = 8",
    }
    for cell in notebook.cells:
        for old, new in changes.items():
            cell.source = cell.source.replace(old, new)
        cell.source = cell.source.replace("runs/landmark_notebook", str(tmp_path / "work"))
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(repository)}}
    )
    client.execute()  # raises at the first cell that fails, and shuts the kernel down
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "highest:" in text
    assert all(f"{name}: balanced accuracy" in text for name in ("raw", "centred", "scaled", "aligned"))
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 8
