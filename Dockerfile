# docker build -t fairdx .
# mkdir -p out && docker run --rm --user "$(id -u):$(id -g)" -e HOME=/tmp -v "$PWD/out:/out" fairdx demo --out /out/demo
# For a GPU start from an image with CUDA, e.g. nvidia/cuda:12.6.3-runtime-ubuntu24.04, and install Python 3.11 or newer.
FROM python:3.12-slim
WORKDIR /fairdx
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir '.[train,dicom,excel]'
RUN useradd --create-home fairdx
USER fairdx
ENTRYPOINT ["fairdx"]
