"""Processes that find each other, gather with gradients, and agree."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gloo_processes import run_ranks, slurm_variables, torchrun_variables

from facevox.errors import UserError
from facevox.training import distributed
from facevox.training.distributed import World, first_host, read_launch

SLURM = slurm_variables(1, 3, 15000)


def test_plain_start_is_one_process() -> None:
    assert read_launch({}) is None


def test_torchrun_variables_are_read_and_win_over_slurm() -> None:
    launch = read_launch(SLURM | torchrun_variables(2, 4, 29500))
    assert launch is not None
    assert (launch.rank, launch.size, launch.local_rank, launch.init_method) == (2, 4, 2, "env://")


def test_slurm_step_is_read_and_each_step_has_its_port() -> None:
    launch = read_launch(SLURM | {"SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_LOCALID": "0"})
    assert launch is not None
    assert (launch.rank, launch.size, launch.local_rank) == (1, 3, 0)
    assert launch.init_method == "tcp://gpu07:15000"
    methods = {
        read_launch(SLURM | {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).init_method  # type: ignore[union-attr]
        for job in range(123400, 123410)
        for step in range(7)
    }
    assert len(methods) == 70
    given = read_launch(SLURM | {"MASTER_ADDR": "head", "MASTER_PORT": "4000"})
    assert given is not None
    assert given.init_method == "tcp://head:4000"


def test_batch_script_and_step_of_one_task_wait_for_nobody() -> None:
    assert read_launch({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "5"}) is None
    assert read_launch(slurm_variables(0, 1, 15000)) is None


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[003-004,9],login", "gpu003"),
        ("gpu[12,14]", "gpu12"),
        ("rack[2-3]-n[05-06].local,x", "rack2-n05.local"),
    ],
)
def test_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "0"}, "not WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        (torchrun_variables(0, 2, 1) | {"RANK": "one"}, "RANK is 'one'"),
        (torchrun_variables(0, 2, 1) | {"MASTER_PORT": ""}, "MASTER_PORT is ''"),
        (torchrun_variables(2, 2, 1), "rank 2 of 2: ranks go from 0 to 1"),
        (SLURM | {"SLURM_LOCALID": "-1"}, "SLURM_LOCALID is '-1'"),
        (SLURM | {"SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": ""}, "names no host; set MASTER_ADDR"),
    ],
)
def test_broken_environment_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_launch(environment)


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SLURM, *torchrun_variables(0, 1, 1)):
        monkeypatch.delenv(name, raising=False)
    world = distributed.init("cpu")
    assert world == World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    assert world.is_main
    rows = torch.randn(3, 2, requires_grad=True)
    distributed.all_gather_rows(rows).sum().backward()
    assert torch.equal(rows.grad, torch.ones(3, 2))  # type: ignore[arg-type]
    assert distributed.gather_identities(torch.tensor([4, 5])).tolist() == [4, 5]
    assert [distributed.any_rank(flag) for flag in (False, True)] == [False, True]
    assert float(distributed.mean_over_ranks(torch.tensor(2.5))) == 2.5
    assert distributed.own_rows(3) == slice(0, 3)
    assert (distributed.rank(), distributed.world_size(), distributed.is_distributed()) == (0, 1, False)
    distributed.cleanup()


def test_unknown_and_absent_devices_are_refused() -> None:
    with pytest.raises(UserError, match="auto, cpu or cuda"):
        distributed.init("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="finds no GPU here"):
            distributed.init("cuda")


def what_a_rank_sees(world: World) -> dict:
    """Everything in one start of processes, because starting them is what takes the time."""
    generator = torch.Generator().manual_seed(0)
    all_rows = torch.randn(6, 2, 3, generator=generator)
    weight = torch.randn(6, 2, 3, generator=generator)
    own = distributed.own_rows(6 // world.size)
    leaf = all_rows[own].clone().requires_grad_()
    gathered = distributed.all_gather_rows(leaf)
    # A loss that couples all rows, and that each rank takes only its own share of.
    ((gathered**2).sum() * (gathered * weight)[own].sum()).backward()
    with torch.no_grad():
        plain = distributed.all_gather_rows(leaf.transpose(1, 2))
    seen = {
        "world": [world.rank, world.size, world.local_rank, int(world.is_main)],
        "gathered": gathered.detach(),
        "gathered_transposed": plain,
        "gradient": leaf.grad,
        "identities": distributed.gather_identities(torch.tensor([world.rank, 7])),
        "flags": [
            distributed.any_rank(False),
            distributed.any_rank(world.rank == world.size - 1),
            distributed.any_rank(True),
        ],
        "mean": distributed.mean_over_ranks(torch.tensor(float(world.rank))),
    }
    try:
        distributed.gather_identities(torch.arange(3 - world.rank))
    except UserError as error:
        seen["refusal"] = str(error)
    seen["after"] = distributed.any_rank(world.rank == 0)  # the refusal left the ranks in step
    distributed.cleanup()
    seen["left"] = not distributed.is_distributed()
    return seen


@pytest.mark.parametrize(("size", "variables"), [(2, torchrun_variables), (3, slurm_variables)])
def test_processes_gather_and_agree(size: int, variables, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    all_rows = torch.randn(6, 2, 3, generator=generator).requires_grad_()
    weight = torch.randn(6, 2, 3, generator=generator)
    ((all_rows**2).sum() * (all_rows * weight).sum()).backward()  # the sum of what the ranks computed
    ranks = run_ranks(what_a_rank_sees, size, tmp_path, variables=variables)
    for rank, seen in enumerate(ranks):
        rows = slice(rank * 6 // size, (rank + 1) * 6 // size)
        assert seen["world"] == [rank, size, rank, int(rank == 0)]
        assert torch.equal(seen["gathered"], all_rows.detach())
        assert torch.equal(seen["gathered_transposed"], all_rows.detach().transpose(1, 2))
        torch.testing.assert_close(seen["gradient"], all_rows.grad[rows], rtol=1e-5, atol=1e-5)  # type: ignore[index]
        assert seen["identities"].tolist() == [number for r in range(size) for number in (r, 7)]
        assert seen["flags"] == [False, True, True]
        assert float(seen["mean"]) == pytest.approx((size - 1) / 2)
        assert ", ".join(str(3 - r) for r in range(size)) + " samples, by rank" in seen["refusal"]
        assert seen["after"]
        assert seen["left"]


@pytest.mark.slow
def test_torchrun_starts_a_group(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, torch\n"
        "from facevox.training import distributed\n"
        "world = distributed.init('cpu', timeout_s=60)\n"
        "model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))\n"
        "model(torch.ones(1, 2)).sum().backward()\n"  # its threads are alive when the program ends
        "gathered = distributed.all_gather_rows(torch.tensor([world.rank])).tolist()\n"
        "pathlib.Path(__file__).with_name(f'{world.rank}.txt').write_text(str(gathered))\n"
        "distributed.cleanup()\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8") for rank in range(2)] == ["[0, 1]"] * 2
