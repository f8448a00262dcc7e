"""The index of ids against a dictionary: numbers and their texts are one id, all others are not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.features.ids import IdIndex
from service.hash_index import ABSENT
from service.values import Keys

SLOTS = 200
numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 40)
texts = numbers.map(str) | st.text(max_size=3) | st.sampled_from(["007", "+1", "1_0", "\u0661"])
columns: st.SearchStrategy[Keys] = st.one_of(
    st.lists(numbers, max_size=9, unique=True).map(lambda ids: np.array(ids, np.int64)),
    st.lists(texts, max_size=9, unique=True),
)


@given(st.lists(st.tuples(st.sampled_from(("put", "remove")), columns), max_size=12))
def test_it_finds_what_a_dictionary_of_texts_would(steps: list[tuple[str, Keys]]) -> None:
    index, model = IdIndex(SLOTS), dict[str, int]()
    free = list(range(SLOTS))
    for step, ids in steps:
        slots = index.find(ids)
        assert slots.tolist() == [model.get(str(each), ABSENT) for each in ids]
        if step == "remove":
            index.remove(slots[slots != ABSENT])
            for each in ids:
                model.pop(str(each), None)
            continue
        new = np.flatnonzero(slots == ABSENT)
        ids = ids[new] if isinstance(ids, np.ndarray) else [ids[each] for each in new]
        given = np.array([free.pop() for _ in new], np.int64)
        lost = set(index.put(ids, given).tolist())
        model.update(zip(map(str, ids), given.tolist(), strict=True))
        model = {each: slot for each, slot in model.items() if slot not in lost}
        assert sorted(index.used().tolist()) == sorted(model.values())
        used = index.used()
        assert dict(zip(index.ids_of(used), used.tolist(), strict=True)) == model
