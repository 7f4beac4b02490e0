# facevox: faces and voices, lip-sync, facial landmarks (PyTorch; no TensorFlow).
#
#   docker build -f docker/facevox.Dockerfile -t facevox .
#   docker run --rm facevox python scripts/preprocessing/extract_faces.py --help
#
# For machines without a GPU: --build-arg BASE_IMAGE=debian:bookworm-slim --build-arg ACCELERATOR=cpu
# More in docs/containers.md.

# The wheels of torch bring CUDA's libraries; of the base image they need what the driver hooks into.
ARG BASE_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
FROM ${BASE_IMAGE}

WORKDIR /app

# OpenCV loads libGL and GLib, even without a screen. Python is added where the base image has none.
# Versions are those of the base image's release: a pinned one would vanish with the next security update.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates libgl1 libglib2.0-0 \
    && if ! python3 -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))'; then \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv; fi \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

# cuda or cpu; extras of pyproject.toml (mtcnn brings TensorFlow along).
ARG ACCELERATOR=cuda
ARG EXTRAS="face-voice lipsync landmarks cluster demo"
# Folders or pages with wheels, for uv. Indexes may hold passwords: they come by the secret pip_conf.
ARG UV_FIND_LINKS=""
COPY pyproject.toml uv.lock ./
COPY scripts/setup/install.sh scripts/setup/install.py scripts/setup/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_crt,target=/run/secrets/ca.crt \
    UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 sh scripts/setup/install.sh \
        --venv /opt/venv --torch "${ACCELERATOR}" --extras ${EXTRAS} \
    && rm -rf .uv

# Weights stay outside: mount them on /weights. What programs keep for a while goes to /tmp, so that neither the
# home folder nor the image has to be writable.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/weights/huggingface \
    TORCH_HOME=/weights/torch \
    DEEPFACE_HOME=/weights \
    KERAS_HOME=/weights/keras \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    TRITON_CACHE_DIR=/tmp/triton

# Everybody may write where volumes go: a container may run as any user (docker run --user).
ARG UID=10001
ARG GID=10001
RUN groupadd --gid "${GID}" facevox \
    && useradd --uid "${UID}" --gid "${GID}" --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin facevox \
    && install -d -m 1777 /weights checkpoints data dataset_crop logs models outputs runs

COPY . .
RUN pip install --quiet --no-cache-dir --no-index --no-deps --no-build-isolation \
        --disable-pip-version-check -e . \
    && PYTHONDONTWRITEBYTECODE='' python -m compileall -q emotion facevox facevox_demo facevox_programs lc_pytorch lipsync scripts \
    && chmod -R a+rX emotion examples facevox facevox_demo facevox_programs lc_pytorch lipsync scripts

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="facevox" \
    org.opencontainers.image.description="Face-voice matching, lip-sync scoring and repair, facial landmarks" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

USER ${UID}:${GID}
# Some base images greet on stdout, which belongs to the command.
ENTRYPOINT []
STOPSIGNAL SIGTERM
CMD ["python", "scripts/setup/doctor.py"]
