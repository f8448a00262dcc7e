"""`multirank import-onnx`: a graph from elsewhere, published as a version of a model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer


def import_onnx(
    file: Annotated[Path, typer.Argument(help="The ONNX graph")],
    spec: Annotated[Path, typer.Option(help="YAML: what its inputs and outputs are")],
    models: Annotated[
        Path, typer.Option(envvar="MULTIRANK_MODELS_DIR", help="Where published models are")
    ] = Path("models"),
) -> None:
    """Check an ONNX graph against its specification and publish it as the model's next version."""
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        typer.echo("onnx is not installed: pip install 'multirank[onnx]'", err=True)
        raise typer.Exit(1) from error
    from bundle import store
    from bundle.errors import BundleError
    from model_export import fusions
    from model_export.errors import TrainingError
    from model_export.foreign.importing import import_graph
    from model_export.foreign.specification import Specification

    try:
        specification = Specification(spec)
        with tempfile.TemporaryDirectory() as directory:
            manifest = import_graph(file, specification, Path(directory) / "bundle")
            published = store.publish(Path(directory) / "bundle", models)
    except (TrainingError, BundleError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    parity = manifest.parity
    typer.echo(f"parity:    {parity.max_abs_difference:.1e} to the graph fed by hand")
    typer.echo(f"golden:    scores {_WHOSE[parity.reference]}")
    typer.echo(f"published: {published}")
    if specification.spec.fusion is not None:
        target = fusions.default_file(published.parent)
        written = fusions.write_default(specification.spec.fusion, target)
        typer.echo(
            f"formula:   {target}{'' if written else ' is there already and stays as it is'}"
        )


_WHOSE = {
    "torch": "by torch",
    "imported_graph": "of the graph itself, for the example rows",
    "given": "as the examples give them",
}


def register(app: typer.Typer) -> None:
    """Add `import-onnx`."""
    app.command("import-onnx")(import_onnx)
