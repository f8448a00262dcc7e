"""Whatever text comes as a formula or a fusion file: a result, or a FusionError with its place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.fusion.compile import compile_fusion
from service.fusion.directory import load_fusions
from service.fusion.errors import FusionError
from service.fusion.formula import adhoc_fusion

EXAMPLES = int(os.environ.get("MULTIRANK_EXAMPLES", "2000"))
TASKS = ("click", "like")
FEATURES = {"item.price": "number", "item.brand": "category", "user.age": "number"}
SCORES = np.array([[0.5, 0.25], [np.nan, -1.0], [np.inf, 0.0]], np.float32)
GIVEN = {"item.price": np.array([1.0, 0.0, np.nan]), "user.age": np.array(30.0)}

pytestmark = pytest.mark.timeout(3600)

TOKENS = (
    "click like w clik item.price item.brand user.age rank mean if min clip log sigmoid foo "
    "and or not true false 0 1 2.5 .5 1e9 1e999 + - * / ** < <= == != = ( ) ( ) ( ) , . & é"
)
YAML_TOKENS = (
    "formula: expressions: weights: inherits: default: minimum: maximum: description: fuzzed other "
    "w w: a: a click like+w 0.5 1 - ? : , { } [ ] | > & * ! !!int % @ ' \" # --- ... ~"
)
BREAKS = ("\n", "\n", "\n  ", "\n    ", "formula: click\n", '"\\U99999999"', "\t", "\ufeff", "\r\n")

tokens = st.sampled_from(TOKENS.split())
formula_texts = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60).map(lambda data: data.decode("latin-1")),
    st.lists(tokens, max_size=25).map(" ".join),
    st.lists(tokens, max_size=25).map("".join),
    # One token many times over is what breaks a parser that recurses or backtracks.
    st.tuples(tokens, st.sampled_from(["", " "]), st.integers(0, 5000)).map(
        lambda drawn: drawn[1].join([drawn[0]] * drawn[2])
    ),
)
yaml_tokens = st.sampled_from((*YAML_TOKENS.split(), *BREAKS))
file_contents = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(yaml_tokens, max_size=30).map(lambda drawn: " ".join(drawn).encode()),
    st.lists(yaml_tokens, max_size=30).map(lambda drawn: "".join(drawn).encode()),
    st.lists(yaml_tokens, max_size=20).map(
        lambda drawn: ("formula: click\nweights:\n  " + " ".join(drawn)).encode()
    ),
    st.tuples(yaml_tokens, st.integers(0, 3000)).map(lambda d: (d[0] * d[1]).encode()),
)


def check_place(error: FusionError, name: str) -> None:
    assert isinstance(error.line, int)
    assert isinstance(error.column, int)
    heading, *shown = str(error).rsplit("\n", 2)
    assert heading.startswith(f"{name}:{error.line}:{error.column}: ")
    assert set(shown[1]) <= {" ", "^"}
    assert len(shown[1]) <= len(shown[0]) + 1  # a caret may stand after the end
    str(error).encode()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
@given(text=formula_texts)
def test_any_formula(text: str) -> None:
    try:
        compiled = compile_fusion(adhoc_fusion(text), TASKS, FEATURES)
    except FusionError as error:
        check_place(error, "inline")
        return
    assert compiled.evaluate(SCORES, {}, GIVEN).shape == (3,)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fusions")


@settings(
    max_examples=max(EXAMPLES // 2, 100),
    deadline=None,
    suppress_health_check=[HealthCheck.data_too_large],
)
@given(content=file_contents)
def test_any_file(directory: Path, content: bytes) -> None:
    (directory / "fuzzed.yaml").write_bytes(content)
    try:
        fusion = load_fusions(directory)["fuzzed"]
        compiled = compile_fusion(fusion, TASKS, FEATURES)
    except FusionError as error:
        check_place(error, "fuzzed.yaml")
        return
    assert compiled.evaluate(SCORES, compiled.bind_weights({}), GIVEN).shape == (3,)
