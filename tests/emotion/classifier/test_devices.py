"""Several replicas and several processes: the step of all together is the step of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_emotion_training import write_crops

from emotion.classifier.devices import num_slurm_workers
from facevox.errors import UserError

# Two steps of fine-tuning with frozen BatchNorm (its statistics would be those of each replica's part).
STEPS = """
import json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
num_replicas = int(sys.argv[3])
parts = [tf.config.LogicalDeviceConfiguration()] * num_replicas
tf.config.set_logical_device_configuration(cpu, parts)
import emotion.classifier.devices
from small_emotion_training import *
if num_replicas > 1:
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_replicas)])
    devices = emotion.classifier.devices.Devices(strategy, 0, "float32", 1, True)
else:
    devices = emotion.classifier.devices.set_up_devices("cpu")
with devices.strategy.scope():
    network = small_network()
network.get_layer("dropout").rate = 0.0
config = BatchConfig(img_size=SIZE, batch_size=8, seed=3, mixing=NO_MIXING)
parts = [Batches(samples, config, devices.strategy) for samples in read_parts(Path(sys.argv[1]))]
save_dir = Path(sys.argv[2]); save_dir.mkdir(exist_ok=True)
train_config = TrainConfig(save_dir=save_dir, epochs={HEAD: 0, FINETUNE: 1},
    learning_rates={HEAD: .01, FINETUNE: .01},
    weight_decay=.01, freeze_bn_mode="all", unfreeze_from=0.0, ema_decay=.5, early_stopping_patience=5,
    reduce_lr_patience=1, reduce_lr_factor=.5, val_steps=9, seed=0)
trainer = Trainer(network, *parts, np.ones(3, np.float32), train_config, devices, {"is_complete": False})
assert run_all(trainer)
print("RESULT", json.dumps([devices.strategy.num_replicas_in_sync, trainer.history[0]["loss"],
    trainer.history[0]["val_loss"], float(np.abs(network.get_layer("conv").kernel.numpy()).sum()),
    devices.is_main, (save_dir / "state.npz").exists()]))
"""


def run_steps(crops: Path, save_dir: Path, num_replicas: int, **variables: str) -> "subprocess.Popen[str]":
    folder = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ, **variables, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": f"{folder}{os.pathsep}{folder.parents[1]}",
    }  # fmt: skip
    command = [sys.executable, "-c", STEPS, str(crops), str(save_dir), str(num_replicas)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def result_of(process: "subprocess.Popen[str]") -> list[float]:
    output, _ = process.communicate(timeout=250)
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert lines, output[-3000:]
    result: list[float] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


@pytest.mark.slow
def test_two_replicas_and_two_slurm_tasks_take_the_steps_of_one(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops")
    one = result_of(run_steps(crops, tmp_path / "one", 1))
    two = result_of(run_steps(crops, tmp_path / "two", 2))
    assert (one[0], two[0]) == (1, 2)
    np.testing.assert_allclose(two[1:4], one[1:4], rtol=1e-4)
    step = {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_JOB_ID": str(os.getpid()),
    }  # fmt: skip
    tasks = [
        run_steps(crops, tmp_path / "tasks", 1, **step, SLURM_PROCID=str(number), SLURM_LOCALID=str(number))
        for number in range(2)
    ]
    results = [result_of(task) for task in tasks]
    for result in results:
        assert result[0] == 2
        np.testing.assert_allclose(result[1:4], one[1:4], rtol=1e-4)
    assert [result[4] for result in results] == [True, False]


def test_sbatch_script_without_srun_is_one_process() -> None:
    assert num_slurm_workers({}) == 1
    assert num_slurm_workers({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) == 1
    assert num_slurm_workers({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}) == 4
    assert num_slurm_workers({"SLURM_STEP_NUM_TASKS": "4"}) == 1
    with pytest.raises(UserError, match="SLURM_STEP_NUM_TASKS"):
        num_slurm_workers({"SLURM_STEP_NUM_TASKS": "many", "SLURM_PROCID": "0"})
