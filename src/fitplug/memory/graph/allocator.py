"""Where blocks of memory lie in a buffer, and so how large it must be (ggml/src/ggml-alloc.c, ggml_dyn_tallocr)."""

from typing import TypeAlias

from fitplug.errors import RefusedError

MAX_CHUNKS = 16
"""GGML_VBUFFER_MAX_CHUNKS."""
CHUNK_BITS = 56
CHUNK = 1 << CHUNK_BITS
"""Addresses are chunk * CHUNK + offset."""
ENDLESS = CHUNK - 1


State: TypeAlias = tuple[tuple[int, ...], ...]
"""Of each chunk its high-water mark, and offset and size of each free block."""


class Chunk:
    """`tallocr_chunk`: free blocks [offset, size] in order, the last one reaching to the end."""

    __slots__ = ("free", "max_size")

    def __init__(self, size: int) -> None:
        self.free = [[0, size]]
        self.max_size = 0


class DynAllocator:
    """`ggml_dyn_tallocr`: best fit among the holes, else the end."""

    __slots__ = ("alignment", "chunks", "max_chunk_size")

    def __init__(self, alignment: int, max_chunk_size: int = ENDLESS) -> None:
        self.alignment = alignment
        self.max_chunk_size = min(max_chunk_size, ENDLESS)
        self.chunks: list[Chunk] = []

    @property
    def max_size(self) -> int:
        """Bytes of all chunks."""
        return sum(chunk.max_size for chunk in self.chunks)

    def alloc(self, size: int) -> int:
        """An address for `size` bytes (ggml_dyn_tallocr_alloc); `size` is a multiple of the alignment."""
        best_chunk, best_block = -1, -1
        for c, chunk in enumerate(self.chunks):
            best_size = ENDLESS * 2
            free = chunk.free
            for i in range(len(free) - 1):
                n = free[i][1]
                if size <= n <= best_size:
                    best_chunk, best_block, best_size = c, i, n
        if best_block < 0:
            best_chunk, best_block = self._at_an_end(size)
        chunk = self.chunks[best_chunk]
        block = chunk.free[best_block]
        offset = block[0]
        end = block[0] = offset + size
        block[1] -= size
        if block[1] == 0:
            del chunk.free[best_block]
        chunk.max_size = max(chunk.max_size, end)
        return best_chunk * CHUNK + offset

    def _at_an_end(self, size: int) -> tuple[int, int]:
        """The last block of the chunk that grows least; else of a new chunk."""
        best, best_chunk, best_block = -ENDLESS * 2, -1, -1
        for c, chunk in enumerate(self.chunks):
            if chunk.free:
                offset, n = chunk.free[-1]
                reuse = chunk.max_size - offset - size
                if n >= size and (best < reuse if best < 0 else 0 <= reuse < best):
                    best, best_chunk, best_block = reuse, c, len(chunk.free) - 1
        if best_chunk < 0:
            if size > ENDLESS:
                raise RefusedError(f"a buffer of {size} bytes is more than any machine could hold")
            last = len(self.chunks) == MAX_CHUNKS - 1
            self.chunks.append(Chunk(ENDLESS if last else max(size, self.max_chunk_size)))
            return len(self.chunks) - 1, 0
        return best_chunk, best_block

    def free(self, addr: int, size: int) -> None:
        """Give `size` bytes back and merge them with their neighbours (ggml_dyn_tallocr_free_bytes)."""
        start = addr & (CHUNK - 1)
        end = start + size
        free = self.chunks[addr >> CHUNK_BITS].free
        for i, block in enumerate(free):
            if block[0] + block[1] == start:
                block[1] += size
                if i + 1 < len(free) and end == free[i + 1][0]:
                    block[1] += free[i + 1][1]
                    del free[i + 1]
                return
            if end == block[0]:
                block[0] = start
                block[1] += size
                if i > 0 and free[i - 1][0] + free[i - 1][1] == start:
                    free[i - 1][1] += block[1]
                    del free[i]
                return
        at = 0
        while at < len(free) and free[at][0] < start:
            at += 1
        free.insert(at, [start, size])

    def state(self) -> State:
        """All free blocks and high-water marks, to compare: what is allocated next depends on nothing else."""
        return tuple((chunk.max_size, *[n for block in chunk.free for n in block]) for chunk in self.chunks)

    def restore(self, state: State) -> None:
        """Be as another allocator of this kind was in this state."""
        self.chunks = [Chunk(0) for _ in state]
        for chunk, (max_size, *free) in zip(self.chunks, state, strict=True):
            chunk.max_size, chunk.free = max_size, [[*block] for block in zip(free[::2], free[1::2], strict=True)]
