"""What we use of other packages without their promise: an upgrade that takes it away fails here first."""

import argparse
import ast
import inspect
import platform
import re
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = ("facevox", "facevox_demo", "lc_pytorch", "lipsync", "emotion", "scripts", "benchmarks", "examples")
PRIVATE = re.compile(r"_[A-Za-z]\w*")
PUBLIC_ALL_THE_SAME = {
    "_asdict",
    "_fields",
    "_replace",
    "_make",
    "_exit",
}  # documented: of named tuples, of os
PROTOCOLS = "emotion/serving/protocols.py"


def of_argparse(name: str) -> Any:
    return getattr(argparse, name).add_argument


def option_string_actions() -> Any:
    return argparse.ArgumentParser()._option_string_actions["--help"]


def auto_executor() -> Any:
    submitit = pytest.importorskip("submitit")
    with tempfile.TemporaryDirectory() as folder:
        return submitit.AutoExecutor(folder, cluster="local")._executor


def posix_shared_memory() -> Any:
    import _posixshmem

    return _posixshmem.shm_open, _posixshmem.shm_unlink


def of_slurm_executor(name: str) -> Any:
    return getattr(pytest.importorskip("submitit").SlurmExecutor, name)


def process_of_local_job() -> Any:
    local = pytest.importorskip("submitit.local.local")
    return local.LocalJob("jobs", "1", tasks=[0], process=None)._process


def loader_iterator() -> Any:
    return pytest.importorskip("torch.utils.data").DataLoader([0])._iterator


def shutdown_workers() -> Any:
    return pytest.importorskip("torch.utils.data.dataloader")._MultiProcessingDataLoaderIter._shutdown_workers


def model_mapping() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModel._model_mapping[transformers.ViTConfig]


# Our file, their name, their package, and what raises where they changed it.
USES: list[tuple[str, str, str, Callable[[], Any]]] = [
    ("facevox/cli.py", "_ActionsContainer", "Python", lambda: of_argparse("_ActionsContainer")),
    (
        "lc_pytorch/training/options.py",
        "_ActionsContainer",
        "Python",
        lambda: of_argparse("_ActionsContainer"),
    ),
    (
        "lc_pytorch/evaluation/options.py",
        "_ActionsContainer",
        "Python",
        lambda: of_argparse("_ActionsContainer"),
    ),
    ("facevox/cli.py", "_ArgumentGroup", "Python", lambda: of_argparse("_ArgumentGroup")),
    ("facevox/cli.py", "_action_groups", "Python", lambda: argparse.ArgumentParser()._action_groups[0].title),
    ("emotion/serving/memory.py", "_posixshmem", "Python", posix_shared_memory),
    ("facevox/cluster/jobs.py", "_option_string_actions", "Python", option_string_actions),
    ("facevox/cluster/submission.py", "_executor", "submitit", auto_executor),
    (
        "facevox/cluster/submission.py",
        "_make_submission_file_text",
        "submitit",
        lambda: of_slurm_executor("_make_submission_file_text"),
    ),
    (
        "facevox/cluster/submission.py",
        "_submitit_command_str",
        "submitit",
        lambda: of_slurm_executor("_submitit_command_str"),
    ),
    ("facevox/cluster/submission.py", "_process", "submitit", process_of_local_job),
    (PROTOCOLS, "_types", "uvicorn", lambda: pytest.importorskip("uvicorn._types").ASGISendEvent),
    ("facevox/training/batches.py", "_iterator", "torch", loader_iterator),
    ("facevox/training/batches.py", "_shutdown_workers", "torch", shutdown_workers),
    ("lc_pytorch/models/encoders.py", "_model_mapping", "transformers", model_mapping),
]
# Overridden, not called: what looks through the files does not see it.
OVERRIDDEN = ("facevox/cli.py", "_get_help_string", "Python", lambda: argparse.HelpFormatter._get_help_string)


def private_names(source: str) -> set[str]:
    """The private names that a file takes from objects or modules which it does not define itself."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    own = {
        node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    own |= {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }  # fmt: skip
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names: set[str] = set()
    for node in nodes:
        match node:
            case ast.Attribute(attr=name):
                names.add(name)
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(str(name)), *_]
            ):
                names.add(name)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] not in OURS:
                names |= {*module.split("."), *(alias.name for alias in node.names)}
            case ast.Import():
                names |= {part for alias in node.names for part in alias.name.split(".")}
            case ast.Constant(str(text)):  # the program of another Python
                names |= set(re.findall(r"(?:from|import) \w+\.(_\w+)", text))
    return {name for name in names if PRIVATE.fullmatch(name)} - own - PUBLIC_ALL_THE_SAME


@pytest.mark.parametrize(
    ("file", "name", "package", "find"),
    [*USES, OVERRIDDEN],
    ids=[f"{use[0]}:{use[1]}" for use in [*USES, OVERRIDDEN]],
)
def test_private_name_of_another_package_is_still_there(file, name, package, find):
    try:
        find()
    except (AttributeError, ImportError, LookupError, TypeError) as error:
        version = platform.python_version() if package == "Python" else metadata.version(package)
        pytest.fail(f"{file} uses the private {name} of {package} {version}, which changed: {error}")


def test_every_use_of_a_private_name_is_in_the_list():
    found = {
        (file.relative_to(REPOSITORY).as_posix(), name)
        for top in OURS
        for file in (REPOSITORY / top).rglob("*.py")
        for name in private_names(file.read_text(encoding="utf-8"))
    }
    listed = {(file, name) for file, name, *_ in USES}
    assert found - listed == set(), "use what is public, or add it to USES with a look at it"
    assert listed - found == set(), "no longer used: take it out of USES"


def test_private_names_are_found_in_each_form_and_our_own_are_not():
    source = """
import torch._dynamo, os.path
from transformers._private import thing, _other
from lipsync.repair import _ours
class Mine:
    _field = 0
    def __init__(self, parser):
        self._parser = parser
        self._method(self._parser._actions, other._parser, Box._fields, self.__dict__)
        getattr(parser, "_groups"), parser._field, loader.public
    def _method(self): ...
PROGRAM = "from pip._internal import x"
"""
    assert private_names(source) == {"_dynamo", "_private", "_other", "_actions", "_groups", "_internal"}


def protocol_classes() -> dict[str, ast.ClassDef]:
    tree = ast.parse((REPOSITORY / PROTOCOLS).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("name", protocol_classes())
def test_uvicorn_protocol_has_all_that_ours_uses_and_overrides(name):
    """uvicorn promises none of it: attributes of its protocols, methods that ours override."""
    uvicorn = pytest.importorskip("uvicorn")
    from uvicorn.server import ServerState

    from emotion.serving import protocols

    base = getattr(protocols, name).__base__
    config = uvicorn.Config(lambda: None, ws_max_size=1, log_config=None)
    event_loop: Any = object()
    theirs = base(config, ServerState(), {}, event_loop)
    ours = protocol_classes()[name]
    own = {
        node.name
        for node in ours.body
        if isinstance(node, ast.FunctionDef) and (node.name.startswith("_") or not hasattr(base, node.name))
    }
    own |= {node.targets[0].id for node in ours.body if isinstance(node, ast.Assign)}
    own |= {node.target.id for node in ours.body if isinstance(node, ast.AnnAssign)}
    own |= {
        node.target.attr
        for node in ast.walk(ours)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute)
    }
    chains = {ast.unparse(node) for node in ast.walk(ours) if isinstance(node, ast.Attribute)}
    used = {
        chain.removeprefix("self.").replace("super()", "").lstrip(".")
        for chain in chains
        if re.fullmatch(r"self(\.conn)?\.\w+|super\(\)\.\w+", chain)
    } - own
    assert len(used) >= 3
    version = metadata.version("uvicorn")
    for chain in sorted(used):
        found = theirs
        for part in chain.split("."):
            assert hasattr(found, part), (
                f"{PROTOCOLS} uses {base.__name__}.{chain}; uvicorn {version} has none"
            )
            found = getattr(found, part)
    for method in (node.name for node in ours.body if isinstance(node, ast.FunctionDef)):
        if method in own:
            continue
        mine, before = (
            list(inspect.signature(getattr(kind, method)).parameters)
            for kind in (getattr(protocols, name), base)
        )
        assert mine == before, (
            f"{PROTOCOLS} overrides {base.__name__}.{method}, which takes {before} in uvicorn {version}"
        )
