# An image without GPU libraries: docker build -t uniadrs .
# It runs as any user, with a read-only root: docs/cluster.md.
FROM python:3.12-slim
# Wheels of torch for CPUs only; the usual ones bring gigabytes of CUDA libraries.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY uniadrs_scale uniadrs_scale
COPY model model
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "$TORCH_INDEX" torch \
    && pip install --no-cache-dir --constraint constraints.txt '.[remote,targets]' \
    && rm -rf /src/*
WORKDIR /data
USER 10001:10001
ENTRYPOINT []
CMD ["uniadrs-scale", "--help"]
