"""What was decoded last, for a while, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """The values used last, as far as their bytes together allow; from any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        # _lock protects _values; it is held for a look or a change, never while a value is made.
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def has(self, key: Hashable) -> bool:
        """Whether the value of a key is known now."""
        return key in self._values

    def get(self, key: Hashable, make: Callable[[], tuple[Value, int]]) -> Value:
        """The value of a key; `make` gives it and its bytes, where it is not known. Two threads may make it at once."""
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
                return found[0]
        value, size = make()
        if size <= self._bytes_max:
            with self._lock:
                if key not in self._values:
                    self._values[key] = value, size
                    self._bytes += size
                while self._bytes > self._bytes_max:
                    self._bytes -= self._values.popitem(last=False)[1][1]
        return value
