"""Split the people of HQ VoxCeleb into train, val and test, balanced by gender; or audit a split.

    python scripts/hq/create_hq_voxceleb_split.py --vox_dir ./data/HQVoxCeleb \\
        --output_json ./data/HQVoxCeleb/split.json
    python scripts/hq/create_hq_voxceleb_split.py --audit ./data/HQVoxCeleb/split.json

Reads vox1|vox2/mel_spectrograms/<identity>/ and vox1|vox2/masked_faces/<identity>/, and the tables
vox1/vox1_meta.csv and vox2/full_vox2_meta.csv: genders, and whose an id is. Somebody who is in vox1 and in
vox2 gets one part. Writes the file of --output_json; --audit writes nothing and prints the errors of a
split, a line each.
Exit codes: 0 done; 1 the audit found something; 2 bad usage or input.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.cluster.job import Job
from facevox.errors import ExitCode
from lc_pytorch.choices import SETS

DEFAULT_DIR = "data/HQVoxCeleb"
SHOWN_FINDINGS = 50

JOB = Job(inputs=("vox_dir",), output="vox_dir", is_some_failed_done=False)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/hq/create_hq_voxceleb_split.py --vox_dir ./data/HQVoxCeleb "
        "--output_json ./data/HQVoxCeleb/split.json",
    )
    add = parser.add_argument
    add(
        "--vox_dir",
        type=Path,
        metavar="DIR",
        help=f"folder with vox1 and vox2 (default: {DEFAULT_DIR}; with --audit the folder of the split)",
    )
    add("--output_json", type=Path, metavar="FILE", help="file to write (default: split.json in --vox_dir)")
    add("--val_ratio", type=cli.unit_float, default=0.1, help="share of the people for validation")
    add("--test_ratio", type=cli.unit_float, default=0.1, help="share of the people for the test")
    add("--seed", type=cli.natural_int, default=0, help="another seed draws other people")
    add(
        "--audit",
        type=Path,
        metavar="SPLIT_JSON",
        help="check this split against --vox_dir (default: make one)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes or audits a split; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.audit is not None:
        return _audit(args.audit, args.vox_dir or args.audit.parent)
    vox_dir = args.vox_dir or Path(DEFAULT_DIR)
    output_json = args.output_json or vox_dir / "split.json"
    return _make(vox_dir, output_json, args.val_ratio, args.test_ratio, args.seed)


def _make(vox_dir: Path, output_json: Path, val_ratio: float, test_ratio: float, seed: int) -> int:
    from lc_pytorch.hq import split, tree  # torch, by the data sets: not for --help

    scanned = tree.scan_tree(vox_dir)
    genders, notes = tree.load_genders(scanned)
    for note in (*scanned.notes, *notes):
        print(note)
    names = {
        set_name: [person.name for person in people.values() if person.is_complete]
        for set_name, people in scanned.people.items()
    }
    for set_name, people in scanned.people.items():
        left_out = [person.name for person in people.values() if not person.is_complete]
        if left_out:
            print(
                f"{set_name}: {len(left_out)} people without mels or faces are left out ({left_out[0]!r} …)"
            )
    persons = tree.same_people(vox_dir, [name for people in names.values() for name in people])
    drawn = split.make_split(
        names, genders, persons=persons, val_ratio=val_ratio, test_ratio=test_ratio, seed=seed
    )
    split.write_split(output_json, drawn)
    for part in ("train", "val", "test"):
        identities = {persons.get(name, name) for name in drawn.identities(part)}
        counts = Counter(genders.get(name, "") or "unknown" for name in identities)
        by_gender = ", ".join(f"{counts[gender]} {gender}" for gender in sorted(counts))
        print(f"{part}: {len(identities)} people" + (f" ({by_gender})" if by_gender else ""))
    print(f"create_hq_voxceleb_split: the split is in {output_json}")
    return ExitCode.DONE


def _audit(split_json: Path, vox_dir: Path) -> int:
    from lc_pytorch.hq import split, tree  # torch, by the data sets: not for --help

    audited, data = split.load_split(split_json), None
    if any((vox_dir / name).is_dir() for name in SETS):
        data = tree.scan_tree(vox_dir)
        for note in data.notes:
            print(note)
    else:
        print(f"{vox_dir}: neither {' nor '.join(SETS)} is in it: only the names are audited")
    findings = split.audit_split(audited, data)
    for finding in findings[:SHOWN_FINDINGS]:
        print(f"{finding.kind}: {finding.text}")
    if len(findings) > SHOWN_FINDINGS:
        print(f"… and {len(findings) - SHOWN_FINDINGS} more")
    counts = Counter(finding.kind for finding in findings)
    people = sum(audited.count(part) for part in ("train", "val", "test"))
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing found"
    print(f"{split_json}: {people} people in three parts; {summary}")
    return ExitCode.SOME_FAILED if findings else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
