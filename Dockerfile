# Pretraining in a container. From the root of a clone:
#
#   docker build -t slotcon .
#   docker build -t slotcon-gpu --build-arg TENSORFLOW="tensorflow[and-cuda]" .
#   docker build -t slotcon-gpu --build-arg BASE=tensorflow/tensorflow:2.20.0-gpu .
#
#   docker run --rm --read-only --tmpfs /tmp -v /data:/data:ro -v "$PWD/runs:/runs" \
#       slotcon --recipe=coco --data_dir=/data/coco --workdir=/runs/coco
#
# GPUs: `--gpus all --shm-size=8g` besides, and NVIDIA's container toolkit on the host.
# /runs must be writable for user 1000 (--user takes another). Other commands:
# --init --entrypoint=slotcon-evaluate.

# Debian's or Ubuntu's, Python 3.11 or later with pip, with or without TensorFlow.
ARG BASE=python:3.11-slim
FROM ${BASE}

# What brings TensorFlow; CUDA's libraries come with tensorflow[and-cuda].
ARG TENSORFLOW=tensorflow
# Of pyproject.toml.
ARG EXTRAS=data,evaluation,heic,interop

# Whatever is written beside /runs goes to /tmp: the root may be read-only.
ENV HOME=/tmp \
    KERAS_HOME=/tmp/keras \
    MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2 \
    USER=slotcon

COPY pyproject.toml setup.py README.md LICENSE /source/
COPY slotcon_tf /source/slotcon_tf
COPY trainers /source/trainers
COPY export /source/export
COPY client /source/client
# As process 1 a command would not be ended by signals before it is loaded.
RUN apt-get update && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m pip install --no-cache-dir "${TENSORFLOW}" "/source[${EXTRAS}]" \
    && rm -rf /source /tmp/* \
    && mkdir -p /runs && chown 1000:1000 /runs

USER 1000:1000
# Where a relative --workdir, such as the default runs/pretrain, is below /runs.
WORKDIR /
ENTRYPOINT ["tini", "--", "slotcon-pretrain"]
