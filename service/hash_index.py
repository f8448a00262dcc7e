"""An index of 64-bit keys that finds a whole column of them at once.

Keys lie in buckets of eight, 64 bytes each: one line of the processor's cache. A column is found in
one call, which asks the memory for all buckets at once; a dictionary would walk to each in turn.
A key's first bits say which bucket is its own, so keys must be hashes, or be spread like hashes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.native.memory import find

ABSENT = -1
"""The slot of a key that is not in the index."""

NO_KEY = np.uint64(0)
"""A key that is never found."""

_WAYS = 8
_LOG_WAYS = np.uint64(3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: Knuth, TAOCP 3, section 6.4
_GATHER = np.uint64(pow(int(_SPREAD), -1, 1 << 64))  # its inverse: undoes the multiplication
_SIGN = np.uint64(1 << 63)

Keys = npt.NDArray[np.uint64]
Slots = npt.NDArray[np.int64]


def spread(numbers: npt.NDArray[np.int64]) -> Keys:
    """A key for each number, all different; that of the smallest int64 is NO_KEY."""
    return (numbers.view(np.uint64) * _SPREAD) ^ _SIGN


def gathered(keys: Keys) -> npt.NDArray[np.int64]:
    """The number of each key that `spread` gave."""
    return ((keys ^ _SIGN) * _GATHER).view(np.int64)


class HashIndex:
    """A map from keys to slots.

    When the index is full, buckets are a quarter full, so one without room for a key is rare. Then
    another key gives way, and whoever keeps the slots learns which.

    Args:
        capacity: most keys that are put, less those removed.
    """

    def __init__(self, capacity: int) -> None:
        bits = max(int(capacity) * 4 // _WAYS, 1).bit_length()
        self._shift = np.uint64(64 - bits)
        self._keys = np.zeros((1 << bits, _WAYS), np.uint64)
        self._flat_keys = self._keys.reshape(-1)
        self._flat_slots = np.full(_WAYS << bits, ABSENT, np.int64)

    def find(self, keys: Keys) -> Slots:
        """The slots of `keys`, int64 [N]; ABSENT where there is none."""
        return find(np.ascontiguousarray(keys), self._keys, self._flat_slots, int(self._shift))

    def put(self, keys: Keys, slots: Slots) -> Slots:
        """Add distinct keys that are not there; the slots of those that gave way for them."""
        displaced = [np.zeros(0, np.int64)]
        while len(keys):
            places = self._places(keys, np.zeros(len(keys), np.uint64))
            in_the_way = places[self._flat_keys.take(places) != NO_KEY]
            displaced.append(self._flat_slots[in_the_way])
            self._flat_keys[places] = keys
            self._flat_slots[places] = slots
            lost = self._flat_keys.take(places) != keys  # to another of them, of the same bucket
            keys, slots = keys[lost], slots[lost]
        return np.concatenate(displaced)

    def remove(self, keys: Keys) -> None:
        """Forget `keys`; those that are not there are none the less gone."""
        places = self._places(keys, keys)
        places = places[self._flat_keys.take(places) == keys]
        self._flat_keys[places] = NO_KEY
        self._flat_slots[places] = ABSENT

    def _places(self, keys: Keys, wanted: Keys) -> Slots:
        """For each key, the place in its bucket that holds `wanted`; the first one if none does."""
        buckets = keys >> self._shift
        ways = (self._keys.take(buckets, axis=0) == wanted[:, np.newaxis]).argmax(axis=1)
        places: Slots = (buckets << _LOG_WAYS).view(np.int64) + ways
        return places
