"""The peers: how each is started, and how it is asked."""

from __future__ import annotations

import shutil
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson

from loadtest.peers.environments import Environment
from loadtest.prepared import Prepared

_SERVERS = "loadtest.peers.servers"
_HEAD = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\nContent-Length: {}\r\n\r\n"


class Product(ABC):
    """One peer.

    Attributes:
        name: as the table has it. requirements: the file of its packages, and what `main` is in it.
        settings: what was set for one core, for the table.
    """

    name: str
    requirements: str
    main: str
    settings: str

    @abstractmethod
    def command(self, environment: Environment, port: int, scratch: Path) -> list[str]:
        """What starts it; all of PEER_PORT, PEER_BUNDLE, PEER_GRAPH and PEER_REDIS_URL are set."""

    def variables(self, environment: Environment) -> Mapping[str, str]:
        """Environment variables of its own."""
        return {}

    def message(self, request: Prepared) -> Prepared:
        """The request as it wants it; most take it as multirank does."""
        return request

    def body(self, answer: bytes) -> bytes:
        """The answer's JSON, out of what came back."""
        return answer


class _Module(Product):
    """A module of `servers` that is run by the environment's python."""

    def __init__(self, name: str, requirements: str, main: str, module: str, settings: str) -> None:
        self.name, self.requirements, self.main = name, requirements, main
        self._module, self.settings = module, settings

    def command(self, environment: Environment, port: int, scratch: Path) -> list[str]:
        return [environment.python, "-m", f"{_SERVERS}.{self._module}"]


class _Ray(_Module):
    def variables(self, environment: Environment) -> Mapping[str, str]:
        # https://docs.ray.io/en/latest/serve/advanced-guides/performance.html
        return {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}


class _Bento(Product):
    name, requirements, main = "BentoML", "bentoml", "bentoml"
    settings = "1 worker, asynchronous API method, metrics off"

    def command(self, environment: Environment, port: int, scratch: Path) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(Path.cwd())]
        return [environment.python, "-m", "bentoml", "serve", f"{_SERVERS}.bento:Rank", *where]

    def variables(self, environment: Environment) -> Mapping[str, str]:
        return {"BENTOML_DO_NOT_TRACK": "True"}


class _Triton(Product):
    name, requirements, main = "Triton", "triton", "nvidia-pytriton"
    settings = "Python backend, 1 instance, binary tensors"

    def command(self, environment: Environment, port: int, scratch: Path) -> list[str]:
        model = scratch / "triton" / "rank"
        (model / "1").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(__file__).parent / "servers/triton_model.py", model / "1/model.py")
        (model / "config.pbtxt").write_text(_TRITON_CONFIG)
        server = environment.packages / "pytriton" / "tritonserver"
        python = sysconfig.get_python_version()
        backends = scratch / "triton_backends"
        shutil.copytree(server / "backends", backends, dirs_exist_ok=True)
        stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
        shutil.copy(stub, backends / "python")  # the one of this Python
        return [
            str(server / "bin" / "tritonserver"),
            *("--model-repository", str(model.parent), "--backend-directory", str(backends)),
            *("--http-address", "127.0.0.1", "--http-port", str(port), "--http-thread-count", "1"),
            *("--allow-grpc", "false", "--allow-metrics", "false", "--log-info", "false"),
        ]

    def variables(self, environment: Environment) -> Mapping[str, str]:
        libraries = (
            environment.packages / "nvidia_pytriton.libs",
            sysconfig.get_config_var("LIBDIR"),
        )
        return {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "PYTHONPATH": f"{environment.packages}:{Path.cwd()}",
        }

    def message(self, request: Prepared) -> Prepared:
        asked = orjson.loads(request.message.partition(b"\r\n\r\n")[2])
        tensors = {
            "USER": np.array([asked["user"]["id"]], np.int64),
            "CONTEXT": np.array(list(asked["context"].values()), np.int64),
            "CANDIDATES": request.candidates.astype(np.int64),
        }
        described = [
            {
                "name": name,
                "shape": list(tensor.shape),
                "datatype": "INT64",
                "parameters": {"binary_data_size": tensor.nbytes},
            }
            for name, tensor in tensors.items()
        ]
        wanted = [{"name": "ANSWER", "parameters": {"binary_data": True}}]
        head = orjson.dumps({"inputs": described, "outputs": wanted})
        body = head + b"".join(tensor.tobytes() for tensor in tensors.values())
        length = f"Inference-Header-Content-Length: {len(head)}"
        message = _HEAD.format("/v2/models/rank/infer", length, len(body)).encode() + body
        return Prepared(message, request.candidates)

    def body(self, answer: bytes) -> bytes:
        # a JSON head, then the tensor: the only '{"ids"' is where the answer begins
        start = answer.find(b'{"ids"')
        return answer[start:] if start >= 0 else answer


_TRITON_CONFIG = """
backend: "python"
max_batch_size: 0
input [
  { name: "USER" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "CONTEXT" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "CANDIDATES" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "ANSWER" data_type: TYPE_UINT8 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

PRODUCTS: tuple[Product, ...] = (
    _Module("FastAPI", "fastapi", "fastapi", "plain_fastapi", "uvicorn, uvloop, httptools"),
    _Bento(),
    _Module("LitServe", "litserve", "litserve", "lit", "1 worker, fast queue"),
    _Module("mosec", "mosec", "mosec", "mosec_server", "1 worker"),
    _Ray("Ray Serve", "ray", "ray", "ray_serve", "1 replica, throughput optimised"),
    _Triton(),
)
