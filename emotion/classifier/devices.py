"""The devices of a training: the CPU, every visible GPU of the machine, or those of a whole SLURM step."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf

from facevox.errors import UserError, one_line

MIXED_PRECISION = "mixed_float16"
# NVIDIA's tensor cores begin here; below, half precision is no faster.
LEAST_CAPABILITY = (7, 0)
# Below Linux's range for outgoing connections (32768 on), above the usual services.
FIRST_PORT, NUM_PORTS = 12000, 20000
PORTS_OF_A_JOB = 16  # a task of each GPU of the largest machines


@dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        strategy: A tf.distribute strategy.
        num_gpus: GPUs of this process.
        precision: "float32" or "mixed_float16", already set in Keras.
        num_workers: Processes that train together.
        is_main: Whether this process writes files and the log.
    """

    strategy: tf.distribute.Strategy
    num_gpus: int
    precision: str
    num_workers: int
    is_main: bool


def num_slurm_workers(environ: Mapping[str, str]) -> int:
    """Tasks of the SLURM step that this process is one of; 1 outside of `srun`.

    Not by SLURM_NTASKS: an sbatch script sees that too, where nobody has started the other tasks.
    """
    text = environ.get("SLURM_STEP_NUM_TASKS", "1")
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"environment variable SLURM_STEP_NUM_TASKS: {text!r} is not a number of tasks")
    return int(text) if "SLURM_PROCID" in environ else 1


def set_up_devices(device: str) -> Devices:
    """Chooses devices, strategy and precision; call it once, before anything else of TensorFlow runs.

    MultiWorkerMirroredStrategy for a SLURM step of several tasks, MirroredStrategy for several GPUs, the
    default otherwise. Half precision on GPUs that have tensor cores.

    Args:
        device: One of `emotion.classifier.start.DEVICES`; "auto": GPUs where there are some.

    Raises:
        UserError: No GPU for "cuda", or the SLURM step cannot be joined.
    """
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    gpus = tf.config.get_visible_devices("GPU")
    if device == "cuda" and not gpus:
        raise UserError(
            "--device cuda: TensorFlow sees no GPU (a CUDA build of TensorFlow and a driver are needed)"
        )
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    num_workers = num_slurm_workers(os.environ)
    if num_workers > 1:
        strategy: tf.distribute.Strategy = _join_slurm_step(len(gpus))
        is_main = strategy.cluster_resolver.task_id == 0
    elif len(gpus) > 1:
        strategy, is_main = tf.distribute.MirroredStrategy(), True
    else:
        strategy, is_main = tf.distribute.get_strategy(), True
    precision = MIXED_PRECISION if gpus and _have_tensor_cores(gpus) else "float32"
    keras.mixed_precision.set_global_policy(precision)
    return Devices(strategy, len(gpus), precision, num_workers, is_main)


def _join_slurm_step(num_gpus: int) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=_port(os.environ),
            # Without GPUs too: TensorFlow counts the tasks of a node by them.
            gpus_per_node=max(num_gpus, 1) * _tasks_per_node(os.environ),
            gpus_per_task=max(num_gpus, 1),
            auto_set_gpu=False,
        )
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except (RuntimeError, ValueError, KeyError, OSError, tf.errors.OpError) as error:
        raise UserError(f"the SLURM step cannot be joined: {one_line(error, 200)}") from None


def _port(environ: Mapping[str, str]) -> int:
    """The first of the ports at which the tasks of a machine meet, another one for each job."""
    digits = environ.get("SLURM_JOB_ID", "0")
    return FIRST_PORT + (PORTS_OF_A_JOB * int(digits) if digits.isdigit() else 0) % NUM_PORTS


def _tasks_per_node(environ: Mapping[str, str]) -> int:
    """The first number of SLURM_STEP_TASKS_PER_NODE ("2(x3)", "2,1")."""
    digits = environ.get("SLURM_STEP_TASKS_PER_NODE", "1").split(",")[0].split("(")[0]
    return int(digits) if digits.isdigit() else 1


def _have_tensor_cores(gpus: list[tf.config.PhysicalDevice]) -> bool:
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus
    ]
    return all(tuple(capability) >= LEAST_CAPABILITY for capability in capabilities)
