#!/bin/sh
# Sets facevox up in .venv; install.py does the work, and its options are these. Before that it gets uv, from PATH
# or else by pip into .uv, and the Python that uv finds (or that of PYTHON=/path/to/python).
# Exit codes: those of install.py; 2 also when there is no uv or no Python.
set -u
cd "$(dirname "$0")/../.." || exit 2

fail() {
    echo "error: $1" >&2
    exit 2
}

uv=$(command -v uv) || uv=""
case $uv in */.venv/*) uv="" ;; esac  # it vanishes when the environment is made again
if [ -z "$uv" ] || ! "$uv" --version > /dev/null 2>&1; then
    uv=$PWD/.uv/bin/uv
    version=$(sed -n '/^name = "uv"$/{n;s/^version = "\(.*\)"$/\1/p;}' uv.lock)
    case $("$uv" --version 2> /dev/null) in
        "uv $version"*) ;;
        *)
            python=""
            for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
                if "$name" -c 'import ensurepip, venv' 2> /dev/null; then python=$name && break; fi
            done
            [ -n "$python" ] || fail "no uv on PATH, and no Python that could fetch it; get one (Debian, Ubuntu: sudo apt-get install python3-venv; anywhere: https://docs.astral.sh/uv) and run make install again"
            echo "setup: fetching uv $version"
            "$python" -m venv --clear .uv || fail "$python could not make the environment .uv (above)"
            .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$version" \
                || fail "pip could not fetch uv (above); get it in another way (https://docs.astral.sh/uv) and run make install again"
            ;;
    esac
fi

# Without a request uv takes what pyproject.toml allows.
if ! python=$("$uv" python find --system --no-python-downloads ${PYTHON:+"$PYTHON"} 2> /dev/null); then
    fail "${PYTHON:+PYTHON=$PYTHON does not run, and }facevox needs Python 3.11, 3.12 or 3.13 (TensorFlow has no release for 3.14 yet); get one ($uv python install 3.13; Debian 12 and 13, Ubuntu 24.04: sudo apt-get install python3; macOS: brew install python@3.13) and run make install again, or make install PYTHON=/path/to/python3.13"
fi
exec "$python" scripts/setup/install.py --uv "$uv" "$@"
