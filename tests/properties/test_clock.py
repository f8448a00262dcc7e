"""The clock: it gives different slots, none that is kept, and those in use last."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.clock import Clock

slots = st.integers(1, 40)


@given(st.data(), slots, st.booleans())
def test_it_gives_what_may_be_taken_unasked_first(
    data: st.DataObject, count: int, skips_the_first: bool
) -> None:
    first = int(skips_the_first)
    clock = Clock(count + first, first)
    for _ in range(4):
        everything = range(first, count + first)
        asked = data.draw(st.sets(st.sampled_from(everything)))
        kept = data.draw(st.sets(st.sampled_from(everything)))
        wanted = data.draw(st.integers(0, count - len(kept)))
        clock.asked[:] = False
        clock.asked[list(asked)] = True
        given = clock.take(wanted, np.array(sorted(kept), np.int64)).tolist()
        assert len(set(given)) == len(given) == wanted
        assert set(given) <= set(everything) - kept
        if not set(everything) - kept - asked <= set(given):  # some unasked ones were left
            assert not set(given) & asked
        assert not clock.asked[given].any()
