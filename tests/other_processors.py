"""Run the tests of equalities as other processors would: with other kernels of BLAS, oneDNN, torch and NumPy.

    make test-cpus
    python tests/other_processors.py [pytest options]

Kernels round differently, and the edges of their blocks are elsewhere. What docs/equality.md promises has to
hold under each: the tests marked `numeric` run under every set of variables, those marked `resume` under two.
A set that this processor cannot run is named and left out. `make test` runs them all as the processor is.
Exit codes: 0 all passed; 1 a test failed.
"""

import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Kernels:
    """Settings that make the libraries use the kernels of one kind of processor.

    Attributes:
        name: Of the processor.
        variables: Of the environment, in place of those that are set there.
        flag: What /proc/cpuinfo must have for it.
        has_resume: Whether the tests marked `resume` run under it too.
    """

    name: str
    variables: dict[str, str]
    flag: str = ""
    has_resume: bool = False


SETS = (
    Kernels("AMD Zen", {"OPENBLAS_CORETYPE": "Zen"}, "avx2"),
    Kernels(
        "Intel Haswell (AVX2)",
        {
            "OPENBLAS_CORETYPE": "Haswell",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
        },
        "avx2",
        has_resume=True,
    ),
    Kernels(
        "Intel Sandy Bridge (AVX)",
        {
            "OPENBLAS_CORETYPE": "Sandybridge",
            "MKL_ENABLE_INSTRUCTIONS": "AVX",
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "AVX",
        },
        "avx",
    ),
    Kernels(
        "the oldest (SSE4), NumPy without AVX2",
        {
            "OPENBLAS_CORETYPE": "Prescott",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3",
        },
        "avx2",
        has_resume=True,
    ),
    Kernels(
        "Intel Skylake (AVX-512)",
        {
            "OPENBLAS_CORETYPE": "SkylakeX",
            "MKL_ENABLE_INSTRUCTIONS": "AVX512",
            "ATEN_CPU_CAPABILITY": "avx512",
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        },
        "avx512f",
    ),
    Kernels("one thread", dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")),
)
# Set by some machines for all programs; a set starts without them.
CHOOSERS = {name for kernels in SETS for name in kernels.variables} | {"OPENBLAS_L2_SIZE"}


def processor_flags() -> set[str]:
    """Features of the processor, by the names of /proc/cpuinfo; empty where that does not name them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


def files_with(markers: tuple[str, ...]) -> list[str]:
    """The test files that hold a test with one of the markers: to import all others would take longest."""
    pattern = re.compile(rf"pytest\.mark\.({'|'.join(markers)})\b")
    return [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if pattern.search(file.read_text(encoding="utf-8"))
    ]


def main(argv: list[str] | None = None) -> int:
    """Runs the sets in sequence; returns the exit code."""
    options = sys.argv[1:] if argv is None else argv
    flags = processor_flags()
    failed = []
    for kernels in SETS:
        if kernels.flag and (kernels.flag not in flags or platform.machine() not in ("x86_64", "AMD64")):
            print(f"== {kernels.name}: left out, this processor has no {kernels.flag}", flush=True)
            continue
        print(f"== {kernels.name}: {kernels.variables or 'no variables'}", flush=True)
        environment = {name: value for name, value in os.environ.items() if name not in CHOOSERS}
        environment["OMP_NUM_THREADS"] = "2"  # conftest.py would leave one to each process of tests
        markers = ("numeric", "resume") if kernels.has_resume else ("numeric",)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "logical"]
        command += ["--maxprocesses", "4", "--dist", "loadfile"]
        command += ["-m", f"({' or '.join(markers)}) and not slow", *files_with(markers), *options]
        start_s = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=environment | kernels.variables, check=False).returncode
        print(f"== {kernels.name}: exit code {code} after {time.monotonic() - start_s:.0f} s", flush=True)
        if code:
            failed.append(kernels.name)
    if failed:
        print(f"error: failed as {'; as '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
