"""What can be done to a version before it appears, and bringing one."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from bundle.manifest import MANIFEST_FILE, parse
from tests.published import MODEL, ModelsDirectory, reseal


def change_byte(name: str, where: float = 0.5) -> Callable[[Path], None]:
    """Change one bit of one byte of a file, at a fraction of its length."""

    def damage(version: Path) -> None:
        content = bytearray((version / name).read_bytes())
        content[int(where * (len(content) - 1))] ^= 1
        (version / name).write_bytes(content)

    return damage


def truncate(name: str, left: float) -> Callable[[Path], None]:
    """Leave a fraction of a file."""

    def damage(version: Path) -> None:
        content = (version / name).read_bytes()
        (version / name).write_bytes(content[: int(left * len(content))])

    return damage


def remove(name: str) -> Callable[[Path], None]:
    """Take a file away."""
    return lambda version: (version / name).unlink()


def link(name: str) -> Callable[[Path], None]:
    """Put a symlink to the very same content in a file's place."""

    def damage(version: Path) -> None:
        elsewhere = version.parent / f".{version.name}-{name}"
        (version / name).rename(elsewhere)
        (version / name).symlink_to(elsewhere)

    return damage


def link_to_nowhere(name: str) -> Callable[[Path], None]:
    """Put a symlink to nothing in a file's place."""

    def damage(version: Path) -> None:
        (version / name).unlink()
        (version / name).symlink_to(version / "nowhere")

    return damage


def edit_manifest(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Replace text of the manifest."""

    def damage(version: Path) -> None:
        content = (version / MANIFEST_FILE).read_bytes()
        assert old in content
        (version / MANIFEST_FILE).write_bytes(content.replace(old, new, 1))

    return damage


def weights_not_a_number(version: Path) -> None:
    """The largest layer of the joint stage is NaN, in a bundle that verifies."""
    graph = onnx.load(version / "joint.onnx")
    floats = [each for each in graph.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    largest = max(floats, key=lambda each: numpy_helper.to_array(each).size)
    weights = np.full_like(numpy_helper.to_array(largest), np.nan)
    largest.CopyFrom(numpy_helper.from_array(weights, largest.name))
    onnx.save(graph, version / "joint.onnx")
    reseal(version)


def not_a_graph(version: Path) -> None:
    """A stage that no runtime can open, in a bundle that verifies."""
    (version / "item.onnx").write_bytes(b"not a graph")
    reseal(version)


def stages_exchanged(version: Path) -> None:
    """The item stage is the user's and the other way round, in a bundle that verifies."""
    user, item = (version / "user.onnx").read_bytes(), (version / "item.onnx").read_bytes()
    (version / "user.onnx").write_bytes(item)
    (version / "item.onnx").write_bytes(user)
    reseal(version)


def without_the_task(version: Path) -> None:
    """`like`, which the formula needs, is called `share`, in a bundle that verifies."""
    tasks = parse((version / MANIFEST_FILE).read_bytes()).tasks
    names = ("click", "share", "watch_seconds")
    renamed = [
        task.model_copy(update={"name": name}) for task, name in zip(tasks, names, strict=True)
    ]
    reseal(version, tasks=[task.model_dump() for task in renamed])


def edit_graph(name: str, edit: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    """Change a stage's graph, in a bundle that verifies."""

    def damage(version: Path) -> None:
        graph = onnx.load(version / name)
        edit(graph)
        onnx.save(graph, version / name)
        reseal(version)

    return damage


def of_a_future_opset(graph: onnx.ModelProto) -> None:
    """An opset that no onnxruntime of today knows."""
    graph.opset_import[0].version = 999


def with_a_custom_operator(graph: onnx.ModelProto) -> None:
    """The first node is one of a domain of somebody's own."""
    graph.opset_import.append(onnx.helper.make_opsetid("my.company", 1))
    graph.graph.node[0].domain = "my.company"


def with_a_huge_shape(graph: onnx.ModelProto) -> None:
    """An input that must have a trillion rows."""
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 10**12


def with_float_ids(graph: onnx.ModelProto) -> None:
    """Ids as float32, cast to what they should be."""
    ids = next(each for each in graph.graph.input if each.name == "ids")
    ids.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            if name == "ids":
                node.input[place] = "integers"
    cast = onnx.helper.make_node("Cast", ["ids"], ["integers"], to=onnx.TensorProto.INT32)
    graph.graph.node.insert(0, cast)


def huge_golden_array(version: Path) -> None:
    """Golden rows that declare petabytes, in a bundle that verifies."""
    with zipfile.ZipFile(version / "golden.npz") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    declared = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 3)}
    np.lib.format.write_array_header_1_0(header, declared)
    contents["scores.npy"] = header.getvalue() + bytes(12)
    with zipfile.ZipFile(version / "golden.npz", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    reseal(version)


def sparse(name: str) -> Callable[[Path], None]:
    """A file of 2 TB, of which next to nothing is on disk."""
    return lambda version: os.truncate(version / name, 2 << 40)


def fifo(name: str) -> Callable[[Path], None]:
    """A named pipe, that nobody will ever write to, in a file's place."""

    def damage(version: Path) -> None:
        (version / name).unlink()
        os.mkfifo(version / name)

    return damage


def nested_manifest(version: Path) -> None:
    """A manifest of a hundred thousand lists in each other."""
    deep = b"[" * 100_000 + b"]" * 100_000
    (version / MANIFEST_FILE).write_bytes(b'{"schema_version": 1, "training": ' + deep + b"}")


def long_name_in_manifest(version: Path) -> None:
    """A field that nobody knows, with a name of a megabyte."""
    edit_manifest(b'"family": ', b'"%s": 1, "family": ' % (b"k" * 1_000_000))(version)


def item_stage_width(version: Path) -> None:
    """The manifest says that item tensors are a number wide, in a bundle that verifies."""
    stages = parse((version / MANIFEST_FILE).read_bytes()).stages.model_dump()
    stages["item"]["output_width"] = 1
    reseal(version, stages=stages)


def arrays_of(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the arrays of a file, in a bundle that verifies."""

    def damage(version: Path) -> None:
        with np.load(version / name) as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(version / name, **arrays)
        reseal(version)

    return damage


def with_one_more_field(arrays: dict[str, Any]) -> None:
    """Golden items that have something which no item of this model has."""
    items = arrays["items"]
    arrays["items"] = np.zeros(items.shape, [*items.dtype.descr, ("extra", "<f4")])
    for name in items.dtype.names:
        arrays["items"][name] = items[name]


def encrypted_vocabularies(version: Path) -> None:
    """A zip archive that says that its members are encrypted, in a bundle that verifies."""
    content = bytearray((version / "vocabularies.npz").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            content[at + flags] |= 1
    (version / "vocabularies.npz").write_bytes(content)
    reseal(version)


def half_copied(version: Path) -> None:
    """What a copy that is under way has brought so far: the large graph is still missing."""
    for name in ("joint.onnx", "golden.npz", "vocabularies.npz"):
        (version / name).unlink()


def unreadable(name: str) -> Callable[[Path], None]:
    """Nobody may read a file."""
    return lambda version: (version / name).chmod(0)


def a_link_to_elsewhere(version: Path) -> None:
    """The version is a link to a directory outside of the models."""
    elsewhere = version.parent.parent.parent / f"elsewhere-{version.name}"
    version.rename(elsewhere)
    version.symlink_to(elsewhere)


def under_another_number(version: Path) -> None:
    """The manifest of a version that is not its directory's."""
    reseal(version, version=1000)


def bring(models: ModelsDirectory, damage: Callable[[Path], None]) -> int:
    """Let a damaged copy of trained version 2 appear as the next version; returns its number."""
    version = models.next_version()
    staging = models.model / f".staging-{version}"
    shutil.copytree(models.trained / MODEL / "2", staging)
    reseal(staging, version=version)
    damage(staging)
    staging.rename(models.model / str(version))
    return version
