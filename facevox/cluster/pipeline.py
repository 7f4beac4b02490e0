"""Pipelines: jobs that wait for each other, read from a YAML file.

    settings: {videos: data/videos, out: runs/x}     # ${videos}, ${out} in the values below
    resources: {cpus: 4, time: "12:00:00"}           # of every stage
    stages:
      faces:
        job: extract_faces                           # a name of facevox_programs/jobs.py
        after: []                                    # stages that come first
        resources: {shards: 4}
        options: {dataset_path: "${videos}", output_dir: "${out}/faces"}

An option's value is a text, a number, a list of these, or true and false for an option that takes no value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from string import Template
from typing import Any

from facevox.cluster.jobs import ProgramTable, Request
from facevox.cluster.resources import Resources, is_name
from facevox.errors import UserError
from facevox.yaml_text import parse_yaml

SECTIONS = ("settings", "resources", "stages")
STAGE_KEYS = ("job", "after", "resources", "options")
RESOURCE_KEYS = tuple(field.name for field in fields(Resources) if field.name != "cluster")
MAX_BYTES = 1_000_000  # a pipeline is a page of text


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A checked job of a pipeline.

    Attributes:
        name: Name of the stage.
        request: Program and options.
        resources: Resources that it gets.
        after: Names of the stages that come first.
    """

    name: str
    request: Request
    resources: Resources
    after: tuple[str, ...]


def load_pipeline(
    file: Path, table: ProgramTable, changes: Mapping[str, str], overrides: Mapping[str, object]
) -> list[Stage]:
    """The stages of a pipeline file, each after those that it waits for.

    Args:
        file: YAML.
        table: The programs.
        changes: Other values for its settings.
        overrides: Resources of the command (cluster, partition …), which take precedence.

    Raises:
        UserError: Anything in it is unknown, wrong or missing; with its position, and the valid values.
    """
    content = _section(_read(file), str(file), SECTIONS)
    settings = _mapping(content.get("settings"), f"{file}: settings")
    _refuse_unknown(changes, tuple(settings), f"{file}: settings (--set)")
    values = {name: str(value) for name, value in settings.items()} | dict(changes)
    common = _section(content.get("resources"), f"{file}: resources", RESOURCE_KEYS)
    plain = _mapping(content.get("stages"), f"{file}: stages")
    if not plain:
        raise UserError(f"{file}: no stages")
    stages, faults = {}, []
    for name, body in plain.items():
        try:
            stages[name] = _read_stage(
                name, body, f"{file}: {name}", table, values, {**common}, overrides, set(plain)
            )
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("; ".join(faults))
    try:
        order = list(TopologicalSorter({name: stage.after for name, stage in stages.items()}).static_order())
    except CycleError as error:
        raise UserError(f"{file}: stages wait for each other: {' → '.join(error.args[1])}") from None
    return [stages[name] for name in order]


def _read_stage(
    name: str,
    body: object,
    where: str,
    table: ProgramTable,
    values: Mapping[str, str],
    common: dict[str, object],
    overrides: Mapping[str, object],
    names: set[str],
) -> Stage:
    if not is_name(name):  # it names a job and a folder
        raise UserError(f"{where!r}: a stage's name is of letters, digits, _ . and -")
    content = _section(body, where, STAGE_KEYS)
    job, after = content.get("job"), content.get("after") or []
    if not isinstance(job, str):
        raise UserError(f"{where}: job is missing")
    if not isinstance(after, list) or not all(isinstance(name, str) for name in after):
        raise UserError(f"{where}: after: a list of stages is expected")
    if unknown := [name for name in after if name not in names]:
        raise UserError(f"{where}: after {', '.join(unknown)}: the stages are: {' '.join(names)}")
    stage_resources = _section(content.get("resources"), f"{where}: resources", RESOURCE_KEYS)
    resources = common | stage_resources | dict(overrides)
    options = _mapping(content.get("options"), f"{where}: options")
    try:
        request = table.request(job, _words(options, values), is_later=bool(after))
        checked = _make_resources(resources)
        checked.check(request)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Stage(name=name, request=request, resources=checked, after=tuple(after))


def _make_resources(values: Mapping[str, Any]) -> Resources:
    texts = ("time", "partition", "account", "qos", "cluster")
    wrong = [
        f"{name}: {value!r} is no {'text in quotes' if name in texts else 'number'}"
        for name, value in values.items()
        if value is not None
        and (
            not isinstance(value, str)
            if name in texts
            else isinstance(value, bool) or not isinstance(value, int | float if name == "mem_gb" else int)
        )
    ]
    if wrong:
        raise UserError("; ".join(wrong))
    return Resources(**values)


def _words(options: Mapping[str, object], values: Mapping[str, str]) -> list[str]:
    """The options as words of a command line."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is False:
            words.append(f"--no-{name}")
        elif isinstance(value, list):
            words += [f"--{name}", *(_substitute(element, values, name) for element in value)]
        else:
            words.append(f"--{name}={_substitute(value, values, name)}")
    return words


def _substitute(value: object, values: Mapping[str, str], name: str) -> str:
    if isinstance(value, dict | list | bool) or value is None:
        raise UserError(f"options: {name}: {value!r} is neither a text nor a number")
    try:
        return Template(str(value)).substitute(values)
    except KeyError as error:
        raise UserError(
            f"options: {name}: ${{{error.args[0]}}} is not a setting; the settings are: {' '.join(values)}"
        ) from None
    except ValueError:
        raise UserError(f"options: {name}: {value!r}: a single $ is written as $$") from None


def _read(file: Path) -> object:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f"{file}: more than {MAX_BYTES} bytes; that is not a pipeline")
        return parse_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file; examples/pipeline.yaml is one") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())[:200]}") from None


def _mapping(value: object, where: str) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{where}: names with values are expected")
    return value


def _section(value: object, where: str, valid: Sequence[str]) -> dict[str, object]:
    content = _mapping(value, where)
    _refuse_unknown(content, valid, where)
    return content


def _refuse_unknown(names: Mapping[str, object], valid: Sequence[str], where: str) -> None:
    if unknown := [name for name in names if name not in valid]:
        raise UserError(f"{where}: unknown: {', '.join(unknown)}; known: {' '.join(valid)}")
