# acrn_jax in a container, for the CPU or for NVIDIA cards; docs/clusters.md shows how it is run.
#
#   docker build -t acrn_jax .                                   for the CPU
#   docker build -t acrn_jax --build-arg ACCELERATOR=cuda13 .    drivers from 580 on; cuda12: from 525 on
#
# jax brings its CUDA libraries with it: of the host it wants the driver and the NVIDIA container toolkit alone. Versions
# are those of constraints.txt. `.ci/container` carries out the same steps without a container engine.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim
ARG ACCELERATOR=cpu
WORKDIR /src

# The requirements alone first: a change of the code does not install them anew.
COPY pyproject.toml constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt uv
RUN uv pip install --no-cache --python "$(command -v python)" --constraints constraints.txt --requirements pyproject.toml \
    --extra export $(test "$ACCELERATOR" = cpu || echo --extra "$ACCELERATOR")

COPY README.md LICENSE ./
COPY acrn_jax acrn_jax
COPY configs configs
COPY data_prep data_prep
RUN uv pip install --no-cache --python "$(command -v python)" --no-deps . && uv pip check --python "$(command -v python)"
RUN cd / && acrn --version && acrn train --config=demo --help >/dev/null

WORKDIR /work
ENTRYPOINT ["acrn"]
CMD ["--help"]
