#!/bin/sh
# Prints the Python that sets facevox up: the first of $PYTHON (alone, when given), python3, python3.12,
# python3.11 and pyenv's versions that is 3.11 or 3.12 and can make a virtual environment.
# Says in one line on stderr what is missing and how to get it, exit code 2, when there is none.
set -u

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
    echo "usage: [PYTHON=/path/to/python] sh scripts/setup/find_python.sh"
    echo "Prints the path of a Python 3.11 or 3.12 with the venv module."
    exit 0
fi
if [ $# -gt 0 ]; then
    echo "find_python.sh: error: unrecognized argument: $1 (see find_python.sh --help)" >&2
    exit 2
fi

found=""      # versions that are not accepted, for the message
without_venv=""

# Prints "3.11.7 yes /usr/bin/python3" (version, has venv, real path); nothing when $1 is no working Python.
describe() {
    "$1" -c '
import importlib.util as u, sys
has_venv = u.find_spec("venv") and u.find_spec("ensurepip")
print("%d.%d.%d" % sys.version_info[:3], "yes" if has_venv else "no", sys.executable)
' 2>/dev/null
}

try() {
    answer=$(describe "$1") || return 0  # a version manager's stand-in for a version that is not there
    version=${answer%% *}
    rest=${answer#* }
    case $version in
        3.11.* | 3.12.*) ;;
        *)
            found="$found, $1 is $version"
            return 0
            ;;
    esac
    if [ "${rest%% *}" = no ]; then
        without_venv=$1
        minor=${version%.*}
        return 0
    fi
    printf '%s\n' "${rest#* }"
    exit 0
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON"
    [ -n "$found$without_venv" ] || found=", $PYTHON is not a Python that runs"
else
    for candidate in python3 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1; then try "$candidate"; fi
    done
    for candidate in "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}"/versions/3.1[21].*/bin/python; do
        if [ -x "$candidate" ]; then try "$candidate"; fi
    done
fi

if [ -n "$without_venv" ]; then
    echo "error: $without_venv has no venv module; get it (sudo apt-get install python$minor-venv) and run make install again" >&2
    exit 2
fi
found=${found#, }
echo "error: facevox needs Python 3.11 or 3.12 (${found:-no python3 on PATH}); get one (Debian 12, Ubuntu 24.04: sudo apt-get install python3 python3-venv; macOS: brew install python@3.12; anywhere: uv python install 3.12) and run: make install PYTHON=/path/to/python3.12" >&2
exit 2
