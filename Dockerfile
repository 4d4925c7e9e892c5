# docker build -t fairdx .
# mkdir -p out && docker run --rm --user "$(id -u):$(id -g)" -e HOME=/tmp -v "$PWD/out:/out" fairdx demo --out /out/demo
#
# With a system CUDA, as for drivers or extensions that need one (PyTorch's own packages bring what it needs):
# docker build -t fairdx-cuda --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 .
# docker run --rm --gpus all ... fairdx-cuda demo --out /out/demo
ARG BASE=python:3.12-slim
FROM ${BASE}
# Bases of CUDA have no Python.
RUN command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null \
    || (apt-get update \
        && apt-get install -y --no-install-recommends python3 python3-venv \
        && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv /opt/fairdx
ENV PATH=/opt/fairdx/bin:$PATH
WORKDIR /fairdx
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt '.[train,study,dicom,excel,export,predict]'
RUN useradd --create-home user
USER user
ENTRYPOINT ["fairdx"]
