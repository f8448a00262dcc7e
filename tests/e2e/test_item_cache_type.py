"""Item tensors kept as float16: half the bytes, scores rounded, the same with and without cache."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import Serve
from tests.e2e.asking import REQUEST, tasks_of
from tests.published import MODEL, ModelsDirectory


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
def test_scores_are_rounded_alike_whatever_is_cached(
    models_dir: ModelsDirectory, serve: Serve, cache_bytes: int
) -> None:
    exact = serve(models_dir.path)
    service = serve(models_dir.path, item_cache_type="float16", item_cache_bytes=cache_bytes)
    assert "kept as float16, which changes golden scores by" in service.log()

    expected = tasks_of(exact.ask("/score", REQUEST))
    first, second = (tasks_of(service.ask("/score", REQUEST)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected, rtol=1e-2, atol=1e-2)
    assert (first != expected).any()

    kept, whole = (
        each.metric("multirank_item_cache_bytes", model=MODEL) for each in (service, exact)
    )
    assert kept == (whole / 2 if cache_bytes else 0)
