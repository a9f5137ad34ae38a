"""Memory in which loader processes hand over their batches, used again and again.

A new page of shared memory costs more than filling it: a batch's took as long as cropping its
images. Nor does the size of /dev/shm matter, which is small in containers.
"""

import mmap
import os
import pickle
import weakref
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.utils.data import get_worker_info

_ALIGNED = 64  # bytes, for the arrays in a buffer
_KNOWN: "weakref.WeakValueDictionary[int, SharedBuffers]" = weakref.WeakValueDictionary()
_numbers = count()


class SharedBuffers:
    """Buffers of `size` bytes, `each` for every loader process.

    Made by the training process before it forks. A loader process fills a free buffer; the
    training process frees it when the last tensor in it is gone.
    """

    def __init__(self, workers: int, each: int, size: int) -> None:
        self.each, self.size = each, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, workers * each * self.size)  # taken from the system when used
        self._taken = mmap.mmap(-1, workers * each)
        self._start = np.frombuffer(self._memory, np.uint8).ctypes.data
        self._owner, self._number = os.getpid(), next(_numbers)
        _KNOWN[self._number] = self

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array in a free buffer; in memory of its own where there is none."""
        worker = get_worker_info()
        if worker is not None and np.prod(shape) <= self.size:
            first = worker.id * self.each
            for buffer in range(first, first + self.each):
                if not self._taken[buffer]:
                    return np.ndarray(shape, np.uint8, self._memory, buffer * self.size)
        return np.empty(shape, np.uint8)

    def packed(self, batch: Any) -> Any:
        """Return what stands for a batch on its way to another process.

        All its arrays follow `batch.images` in their buffer. A batch that does not fit, or has
        memory of its own, is left to torch, which copies it into new shared memory later.
        """
        buffer, inside = divmod(batch.images.data_ptr() - self._start, self.size)
        if inside or not 0 <= buffer < len(self._taken):
            return batch
        arrays: list[pickle.PickleBuffer] = []
        head = BytesIO()
        _Pickler(head, protocol=5, buffer_callback=arrays.append).dump(batch)
        room, spans, end = self._room(buffer), [], 0
        for array in (np.frombuffer(one.raw(), np.uint8) for one in arrays):
            start = end + -end % _ALIGNED
            spans.append(slice(start, end := start + array.nbytes))
            if end > self.size:
                return replace(batch, images=batch.images.clone())
            if array.ctypes.data != room.ctypes.data:  # all but the images, which come first
                room[spans[-1]] = array
        self._taken[buffer] = 1
        return _Packed((self._number, buffer, head.getvalue(), spans))

    def received(self, buffer: int, head: bytes, spans: list[slice]) -> Any:
        """Return a batch over the memory of its buffer, which is free once the batch is gone."""
        room = self._room(buffer)
        weakref.finalize(room, self._free, buffer)
        return pickle.loads(head, buffers=[room[span] for span in spans])

    def _room(self, buffer: int) -> NDArray[np.uint8]:
        return np.frombuffer(self._memory, np.uint8, self.size, buffer * self.size)

    def _free(self, buffer: int) -> None:
        if os.getpid() == self._owner:  # a process forked meanwhile only inherited the tensors
            self._taken[buffer] = 0


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        return (from_numpy, (thing.numpy(),)) if isinstance(thing, Tensor) else NotImplemented


@dataclass(frozen=True)
class _Packed:
    arguments: tuple[int, int, bytes, list[slice]]

    def __reduce__(self) -> Any:
        return _received, self.arguments


def _received(number: int, *arguments: Any) -> Any:
    return _KNOWN[number].received(*arguments)
