# The harness in a container: docs/containers.md says how it is run, and how energy counters are read from inside.
#   docker build -t joule-harness .
#   docker build -t joule-harness:cuda --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
ARG BASE=python:3.12-slim
FROM ${BASE}

# Address of an index of PyTorch's CPU builds; without it the image holds what pip finds, as a rule the CUDA build.
ARG TORCH_INDEX=
# Distributions that are installed, as folders of this repository.
ARG PLUGINS="backend-torch meter-fuel meter-nvml meter-scarf workload-speculative-decoding"

# A base without Python 3.11 or newer gets that of its own distribution.
RUN python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    || { apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv \
         && rm -rf /var/lib/apt/lists/*; }
RUN python3 -m venv /opt/harness
ENV PATH=/opt/harness/bin:${PATH}

WORKDIR /src
COPY . .
RUN set -e; chosen=.; for plugin in ${PLUGINS}; do chosen="${chosen} ./plugins/${plugin}"; done; \
    python -m pip install --no-cache-dir --no-compile ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} \
        -c constraints.txt ${chosen}

# Runs and their records are kept in /runs, which is mounted from outside.
WORKDIR /runs
ENTRYPOINT ["joule-harness"]
CMD ["doctor"]
