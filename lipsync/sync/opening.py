"""Opens the method that is to be used: a checkpoint, the model that comes with the package, or none."""

from __future__ import annotations

from pathlib import Path

from lipsync.sync.methods import AUTO, UNTRAINED, Method, check_method


def open_method(method: str = AUTO, checkpoint: str | Path | None = None, device: str = "auto") -> Method:
    """The method that is to be used: a checkpoint where one is given, else the one that is named.

    Args:
        method: One of METHODS; auto: the model that comes with the package.
        checkpoint: best_model.pth of train.py or fit.py.
        device: auto, cpu or cuda; of a checkpoint.

    Raises:
        UserError: No such checkpoint, the file is something else, or both are given.
    """
    check_method(method, checkpoint)
    # Imported here: a checkpoint needs torch, which takes seconds to load.
    if checkpoint is not None:
        from lipsync.network.estimator import load_method

        method_of_file: Method = load_method(checkpoint, device)
        return method_of_file
    from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator

    if method == UNTRAINED:
        estimator = LoudnessEstimator()
        return Method(f"{UNTRAINED}: {estimator.name}", estimator, UNTRAINED_CALIBRATION)
    from lipsync.shipped.model import load_shipped

    return load_shipped()
