# The project with its tested versions, for a machine with an NVIDIA GPU or none.
#
#   docker build -t histology .                      # runs the quick tests; --target base leaves them out
#   docker run --gpus all --ipc=host -v /data:/data -v $PWD/runs:/app/runs histology pretrain data.root=/data
#
# torch brings its own CUDA libraries (13.0 in constraints.txt); the base supplies the rest of a CUDA system.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS base

# hadolint ignore=DL3008  # Ubuntu removes old versions of its packages, so pins would not build for long
RUN apt-get update \
 && apt-get install -y --no-install-recommends git make python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*

# A user of its own: what a reader of foreign files could reach is this folder and the mounted data.
RUN useradd --create-home --uid 10001 histology && mkdir /app && chown histology /app
USER 10001
WORKDIR /app

# The environment first: it changes less often than the code, and is the slow part.
COPY --chown=histology Makefile pyproject.toml constraints.txt ./
RUN make install PYTHON=python3 && rm -rf "$HOME/.cache/pip"

COPY --chown=histology . .
RUN mkdir -p runs data
ENTRYPOINT [".venv/bin/python", "-m", "lightning_app"]
CMD ["--help"]

FROM base AS tested
RUN make test ARGS="-m 'not slow'" && touch /app/.tested

FROM base
# Taken from the tested stage, so that an image without passing tests is not built.
COPY --from=tested --chown=histology /app/.tested /app/.tested
