# facevox-emotion: the emotion classifier's training (TensorFlow) and the server of its live page.
#
#   docker build -f docker/emotion.Dockerfile -t facevox-emotion .
#   docker run --rm -p 127.0.0.1:8001:8001 -v ./models:/app/models facevox-emotion
#
# The server alone, a fraction of the size, needs neither TensorFlow nor a GPU:
#   docker build -f docker/emotion.Dockerfile -t facevox-emotion-server --build-arg EXTRAS=emotion-server \
#       --build-arg BASE_IMAGE=debian:bookworm-slim --build-arg ACCELERATOR=cpu .
# More in docs/containers.md.

# TensorFlow's wheels bring CUDA 12's libraries; of the base image they need what the driver hooks into.
ARG BASE_IMAGE=nvidia/cuda:12.6.3-base-ubuntu24.04
FROM ${BASE_IMAGE}

WORKDIR /app

# OpenCV loads libGL and GLib, even without a screen; the font is for Korean labels in pictures. Python is
# added where the base image has none.
# Versions are those of the base image's release: a pinned one would vanish with the next security update.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates fonts-nanum libgl1 libglib2.0-0 \
    && if ! python3 -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))'; then \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv; fi \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

# cuda or cpu; extras of pyproject.toml (emotion-server: the server alone).
ARG ACCELERATOR=cuda
ARG EXTRAS="emotion cluster"
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
# home folder nor the image has to be writable. The server listens to the container's network, or nobody could
# reach it; who outside it may is decided where its port is published.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KERAS_HOME=/weights/keras \
    XDG_CACHE_HOME=/tmp/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba \
    SERVER_HOST=0.0.0.0

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
    && cp .env.example .env \
    && PYTHONDONTWRITEBYTECODE='' python -m compileall -q emotion facevox facevox_demo facevox_programs lc_pytorch lipsync scripts \
    && chmod -R a+rX .env emotion examples facevox facevox_demo facevox_programs lc_pytorch lipsync scripts

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="facevox-emotion" \
    org.opencontainers.image.description="Korean facial emotions: training, and the server of the live page" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

USER ${UID}:${GID}
EXPOSE 8001
# Some base images greet on stdout, which belongs to the command.
ENTRYPOINT []
STOPSIGNAL SIGTERM
# Alive, with or without a model; whether it has one is what /ready says.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"SERVER_PORT\") or 8001}/health', timeout=4)"]
CMD ["python", "emotion/server.py"]
