"""Whatever text comes as a formula or a fusion file: a result, or a FusionError with its place."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.fusion.compile import compile_fusion
from service.fusion.directory import parse_fusions
from service.fusion.errors import FusionError
from service.fusion.formula import Fusion, adhoc_fusion
from service.fusion.rules import compile_rules, parse_rules

EXAMPLES = int(os.environ.get("MULTIRANK_EXAMPLES", "1000"))
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

RULES_TOKENS = (
    "rules: context: experiments: a: b: e: {when: fusion: calm} default} when: calm text number , "
    "{a: 50} 60 } { true context.hour context.day experiment.e == != > 3 'a' \"b\" and not or ("
)
CONTEXT = {"hour": "number", "day": "categorical"}
MOST_S = 0.05
PROOF = EXAMPLES >= 100_000
"""Only then time counts: no test fails because a machine is busy."""

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


rules_tokens = st.sampled_from((*RULES_TOKENS.split(), *BREAKS))
rules_contents = st.one_of(
    st.binary(max_size=80),
    st.lists(rules_tokens, max_size=30).map(lambda drawn: " ".join(drawn).encode()),
    st.lists(rules_tokens, max_size=20).map(
        lambda drawn: (
            "experiments: {e: {a: 50, b: 50}}\nrules:\n  r: {fusion: calm, when: "
            + " ".join(drawn)
            + "}"
        ).encode()
    ),
)


@contextmanager
def in_time(given: object) -> Iterator[None]:
    """Processor time of this thread: neither other work counts, nor the garbage of hypothesis."""
    gc.disable()
    started = time.thread_time()
    try:
        yield
    finally:
        spent = time.thread_time() - started
        gc.enable()
    assert not PROOF or spent < MOST_S, (spent, given)


def fusion_of(content: bytes) -> Fusion:
    read = parse_fusions({"fuzzed": content})
    for mistake in read.mistakes.values():
        raise mistake
    return read.usable["fuzzed"]


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
    with in_time(text):
        try:
            compiled = compile_fusion(adhoc_fusion(text), TASKS, FEATURES)
        except FusionError as error:
            check_place(error, "inline")
            return
        assert compiled.evaluate(SCORES, {}, GIVEN).shape == (3,)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.data_too_large],
)
@given(content=file_contents)
def test_any_file(content: bytes) -> None:
    with in_time(content):
        try:
            compiled = compile_fusion(fusion_of(content), TASKS, FEATURES)
        except FusionError as error:
            check_place(error, "fuzzed.yaml")
            return
        assert compiled.evaluate(SCORES, compiled.bind_weights({}), GIVEN).shape == (3,)


@settings(
    max_examples=max(EXAMPLES // 4, 100),
    deadline=None,
    suppress_health_check=[HealthCheck.data_too_large],
)
@given(content=rules_contents)
def test_any_rules(content: bytes) -> None:
    with in_time(content):
        try:
            rules = compile_rules(parse_rules(content), ("default", "calm"), CONTEXT)
        except FusionError as error:
            check_place(error, "rules.yaml")
            return
        assert rules.choose("u", {"hour": 3, "day": "sunday"})[0] in ("default", "calm")
