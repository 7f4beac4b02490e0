"""Shards of a batch: no two splits of the same items at once, and their manifests joined to a whole one."""

from dataclasses import dataclass
from pathlib import Path

from facevox.errors import UserError
from facevox.locks import OutputLock
from facevox.manifest import (
    FOLDER,
    NOBODY,
    Header,
    ItemIndex,
    Manifest,
    find_manifests,
    is_too_much,
    load_manifest,
    manifest_file,
    shard_of,
    write_manifest,
    write_table,
)


def refuse_other_splits(output_dir: Path, program: str, num_shards: int) -> list[OutputLock]:
    """Makes sure that no other run works on the same items in another number of shards.

    Returns:
        The locks of dead runs that were cleared away.

    Raises:
        UserError: Such a run is alive.
    """
    locks = []
    for path in sorted((output_dir / FOLDER).glob(f"{program}*.lock")):
        if shard_of(path.with_suffix(".jsonl"))[1] != num_shards:
            with OutputLock(path) as lock:
                locks.append(lock)
    return [lock for lock in locks if lock.dead_token]


@dataclass(frozen=True)
class Merged:
    """The joined shards.

    Attributes:
        table: The table of all shards.
        num_rows: Its number of rows.
        counts: Number of items by status.
        settings: Settings that the items were made with.
    """

    table: Path
    num_rows: int
    counts: dict[str, int]
    settings: dict[str, object]

    @property
    def is_empty(self) -> bool:
        """True if no item gave a result."""
        return bool(self.counts) and not self.counts.get("done")

    def has_failed(self, max_failed: float) -> bool:
        """True if a larger share than `max_failed` of the items with somebody in them failed."""
        num_items = sum(count for status, count in self.counts.items() if status not in NOBODY)
        return is_too_much(self.counts.get("failed", 0), num_items, max_failed)


def merge_manifests(output_dir: Path, program: str, *, spreadsheet_safe: bool = False) -> Merged:
    """Joins the shards of a program: writes its whole manifest and table as a single run would have.

    Records of a whole run there, from before or since, are joined too; the newest of an item counts.

    Raises:
        UserError: No shards; a shard missing, unfinished, or made from other inputs or with other settings;
            a run is still working there.
    """
    paths = [path for path in find_manifests(output_dir, program) if shard_of(path)[1] > 1]
    if not paths:
        raise UserError(f"{output_dir}: no shards of {program} to merge")
    whole_file = manifest_file(output_dir, program)
    with OutputLock(whole_file.with_suffix(".lock")):
        refuse_other_splits(output_dir, program, 1)
        manifests = _finished_shards(output_dir, program, paths)
        header: Header = {**manifests[0].header, "overwrite": False}
        whole = load_manifest(whole_file) if whole_file.exists() else None
        if whole is not None and not whole.differences(header):
            manifests.append(whole)
        index = ItemIndex(manifests)
        readers = {index.media_reader(name) for name in index}
        if len(readers) > 1:
            shards = manifests[: len(paths)]
            older = [m.path.name for m in shards if min(map(index.media_reader, m.times)) < max(readers)]
            raise UserError(
                f"{output_dir}: results in {', '.join(older)} are of an older facevox, which read some files "
                "otherwise; run the same command for each part again, which checks them, then merge"
            )
        if max(readers, default=1) > 1:
            header["media_reader"] = max(readers)
        write_manifest(whole_file, header, index.records(sorted(index)), manifests[0].inputs)
        merged = load_manifest(whole_file)
        assert merged is not None, "just written"
        table = output_dir / header["table"]
        num_rows, counts = write_table(table, header, ItemIndex([merged]), spreadsheet_safe=spreadsheet_safe)
        return Merged(table, num_rows, counts, header["settings"])


def _finished_shards(output_dir: Path, program: str, paths: list[Path]) -> list[Manifest]:
    """The manifests of all shards of one split, complete and with the same settings and inputs."""
    way_out = f"run the program once without shards: it takes over what is done ({output_dir})"
    totals = {shard_of(path)[1] for path in paths}
    if len(totals) > 1:
        raise UserError(f"{program}: shards of different splits {sorted(totals)}; {way_out}")
    missing = sorted(set(range(totals.pop())) - {shard_of(path)[0] for path in paths})
    if missing:
        raise UserError(f"{output_dir}: shards of {program} still missing: {' '.join(map(str, missing))}")
    manifests: list[Manifest] = []
    for path in paths:
        manifest = load_manifest(path)
        if manifest is None or not manifest.is_complete:
            raise UserError(f"{path}: this shard is not finished; run its command again, then merge")
        if manifests and (changes := manifests[0].differences(manifest.header)):
            raise UserError(f"{path}: made with other settings than {paths[0].name}: {'; '.join(changes)}")
        if manifests and manifest.inputs != manifests[0].inputs:
            raise UserError(
                f"{path}: had other inputs than {paths[0].name} (files came or went between the runs); "
                "run all shards again, which skips what is done, then merge"
            )
        manifests.append(manifest)
    return manifests
