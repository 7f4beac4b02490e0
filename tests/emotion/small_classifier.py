"""An exported model so small that it is written by hand, without TensorFlow: its answers depend on colours.

probabilities = softmax(WEIGHTS @ mean colour + BIASES)
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("happy", "sad", "neutral", "embarrassed", "anxiety")
SIZE, MARGIN = 48, 0.25
NAME = "emotion_classifier_5_classes.tflite"
WEIGHTS = np.random.default_rng(5).normal(0, 0.02, (len(CLASSES), 3)).astype(np.float32)
BIASES = np.linspace(-0.5, 0.5, len(CLASSES), dtype=np.float32)


def about(**changes: Any) -> dict[str, Any]:
    """Description of the model, as stored in it."""
    preprocessing = {"img_size": SIZE, "crop_margin": MARGIN, "colour": "RGB", "pixel_range": [0, 255]}
    return {"format": 1, "class_names": list(CLASSES), "preprocessing": preprocessing, **changes}


def write_small_classifier(folder: Path, description: dict[str, Any] | None = None) -> Path:
    """Writes the model into `folder`; returns its path."""
    path = folder / NAME
    path.write_bytes(_network())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("emotion.json", json.dumps(about() if description is None else description))
    return path


def expected_probabilities(crops_NSS3: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) by the formula."""
    logits = crops_NSS3.astype(np.float64).mean(axis=(1, 2)) @ WEIGHTS.T.astype(np.float64) + BIASES
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def _network() -> bytes:
    """Mean over the pixels, a dense layer, softmax. Source: the flatbuffer schema of TensorFlow Lite."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version, model.description = 3, "small"
    data = {
        "pixels": ((1, SIZE, SIZE, 3), None),
        "axes": ((2,), np.array([1, 2], np.int32)),
        "colour": ((1, 3), None),
        "weights": (WEIGHTS.shape, WEIGHTS),
        "biases": (BIASES.shape, BIASES),
        "logits": ((1, len(CLASSES)), None),
        "probabilities": ((1, len(CLASSES)), None),
    }
    graph = schema.SubGraphT()
    model.buffers, graph.tensors = [schema.BufferT()], []
    for name, (shape, values) in data.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, list(shape)
        tensor.type = schema.TensorType.INT32 if name == "axes" else schema.TensorType.FLOAT32
        tensor.buffer = 0
        if values is not None:
            tensor.buffer = len(model.buffers)
            buffer = schema.BufferT()
            buffer.data = list(values.tobytes())
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    operators, options = schema.BuiltinOperator, schema.BuiltinOptions
    steps = [
        (operators.MEAN, options.ReducerOptions, schema.ReducerOptionsT(), (0, 1), 2),
        (
            operators.FULLY_CONNECTED,
            options.FullyConnectedOptions,
            schema.FullyConnectedOptionsT(),
            (2, 3, 4),
            5,
        ),
        (operators.SOFTMAX, options.SoftmaxOptions, softmax, (5,), 6),
    ]
    model.operatorCodes, graph.operators = [], []
    for number, (operator, kind, values, inputs, output) in enumerate(steps):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = operator
        model.operatorCodes.append(code)
        step = schema.OperatorT()
        step.opcodeIndex, step.inputs, step.outputs = number, list(inputs), [output]
        step.builtinOptionsType, step.builtinOptions = kind, values
        graph.operators.append(step)
    graph.inputs, graph.outputs = [0], [6]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
