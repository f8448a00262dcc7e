"""The loops that this processor can run, for tests that go through each."""

from __future__ import annotations

import pytest

from service.native import library

LOOPS = [bits for bits in (128, 256, 512) if bits <= library.VECTOR_BITS]


@pytest.fixture(params=LOOPS, scope="module")
def loop(request: pytest.FixtureRequest) -> object:
    """Each of the loops, the processor's own being the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "VECTOR_BITS", request.param)
        yield request.param
