"""Devices behind an RPC server (ggml/src/ggml-rpc/ggml-rpc.cpp): sizes are the server's, all else is the client's."""

from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.cuda import MATRIX_ROW_PADDING
from fitplug.memory.graph.tensor import BLOCKS, Tensor, nbytes

MAY_EXPAND = frozenset(("FLASH_ATTN_EXT", "MUL_MAT", "MUL_MAT_ID", "CUMSUM", "ARGSORT", "TOP_K"))
"""ggml_op_alloc_size_may_expand (ggml/src/ggml-backend.cpp)."""


class RpcBackend(Backend):
    """Supports every operation, offloads and reorders none."""

    remembers = True

    def __init__(self, name: str, alignment: int, max_size: int | None, served: Backend) -> None:
        """`served` is the backend behind the server."""
        self.name = name
        self.alignment = alignment
        self.served = served
        if max_size:
            self.max_size = max_size
        self._answers: dict[object, int] = {}

    def begin(self) -> None:
        """A new process has no answers yet."""
        self._answers = {}

    def alloc_size(self, t: Tensor) -> int:
        """ggml_backend_rpc_buffer_type_get_alloc_size: the server is asked only where its answer may differ.

        Its answers are kept by operation and result, whatever the sources are: of two attentions over caches of unlike
        length the first decides for both.
        """
        size = nbytes(t)
        if BLOCKS[t.type][0] > 1 and t.ne[0] % MATRIX_ROW_PADDING and t.view_src is None:
            return max(size, self._asked(t))
        return max(size, self._asked(t)) if t.op in MAY_EXPAND else size

    def _asked(self, t: Tensor) -> int:
        key = (t.type, t.op, t.param, t.ne, t.nb)
        found = self._answers.get(key)
        if found is None:
            found = self._answers[key] = self.served.alloc_size(t)
        return found
