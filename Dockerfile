# The service alone: no torch, no tools, no compiler, an unprivileged user.
#
#   docker build -t multirank .
#   docker run -p 8000:8000 -v ./models:/models:ro multirank
#
# `make demo` fills ./models. Settings are MULTIRANK_ variables (README). The image is read-only at
# run time: `--read-only` works.

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/multirank
# Without the packages, this installs what pyproject.toml depends on: a layer that code changes keep.
COPY pyproject.toml constraints.txt README.md ./
RUN /opt/multirank/bin/pip install --only-binary :all: --constraint constraints.txt .
COPY . .
RUN /opt/multirank/bin/pip install --no-deps --force-reinstall . \
    && /opt/multirank/bin/pip check \
    && /opt/multirank/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
RUN groupadd --gid 10001 multirank \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin multirank
COPY --from=build /opt/multirank /opt/multirank
# onnxruntime would report its use to its maker, and write an id for it into the home directory.
ENV PATH=/opt/multirank/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MULTIRANK_HOST=0.0.0.0 \
    MULTIRANK_PORT=8000 \
    MULTIRANK_MODELS_DIR=/models
# By number: Kubernetes can tell that it is not root.
USER 10001:10001
VOLUME /models
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"MULTIRANK_PORT\"]}/healthz', timeout=2)"]
# The exec form: python is process 1 and gets SIGTERM, answers what it has accepted, and ends.
CMD ["multirank", "serve"]
