#!/bin/sh
# Installs what extras of the project need into a virtual environment, at the versions of requirements.lock.
# The project itself is not installed, so that this layer of an image outlives changes of the source.
#
#   docker/install_packages.sh VENV cpu|cuda EXTRA...
#
# cpu takes the CPU build of torch; cuda the CUDA builds of torch and torchvision, or TensorFlow with its CUDA
# libraries. pip's settings (/etc/pip.conf, PIP_*) and uv's (UV_*) say where packages come from.
set -eu

venv=$1
accelerator=$2
shift 2
case $accelerator in
    cpu | cuda) ;;
    *)
        echo "error: ACCELERATOR=$accelerator: cpu or cuda" >&2
        exit 2
        ;;
esac
has_torch=no
has_tensorflow=no
for extra in "$@"; do
    shift
    set -- "$@" --extra "$extra"
    case $extra in
        face-voice | lipsync | landmarks) has_torch=yes ;;
        emotion) has_tensorflow=yes ;;
    esac
done

python=$(sh scripts/setup/find_python.sh)
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check -c requirements.lock uv

# uv, looking where pip's settings point.
install() {
    "$python" scripts/setup/install.py --venv "$venv" --uv \
        pip install --python "$venv/bin/python" --no-cache -c requirements.lock "$@"
}

pinned() {
    sed -n "s/^$1==//p" requirements.lock
}

if [ "$accelerator" = cuda ]; then
    if [ "$has_torch" = yes ]; then set -- "$@" --extra cuda; fi
    if [ "$has_tensorflow" = yes ]; then set -- "$@" "tensorflow[and-cuda]==$(pinned tensorflow)"; fi
elif [ "$has_torch" = yes ]; then
    # Where the settings point, else in PyTorch's own index, which uv knows.
    torch="torch==$(pinned torch)+cpu"
    if install --dry-run --no-deps --quiet "$torch" 2> /dev/null; then
        set -- "$@" "$torch"
    elif install --dry-run --no-deps --quiet --torch-backend cpu "$torch"; then
        set -- "$@" --torch-backend cpu "$torch"
    else
        echo "error: no CPU build of torch within reach: say where by UV_FIND_LINKS, or take ACCELERATOR=cuda" >&2
        exit 1
    fi
fi
# setuptools installs the project later on, without network. The compiled forms are made here: whoever runs the
# image may not write them, and without them each import would take twice as long.
install --compile-bytecode -r pyproject.toml setuptools "$@"
"$venv/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check uv
