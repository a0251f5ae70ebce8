"""A tensor as ggml sees it while nothing is computed: a shape, strides, an operation and its sources.

It carries no data. What it carries besides its shape are notes that the scheduler and the allocator make on it, as attributes
and not in dictionaries, because a graph has thousands of tensors and is laid out many times a second.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from fitplug.formats.ggml_types import TYPES

Shape: TypeAlias = tuple[int, int, int, int]

BLOCKS: dict[str, tuple[int, int]] = {row.name: (row.block, row.n_bytes) for row in TYPES if not row.removed}
"""Elements and bytes of one block of each type (ggml/src/ggml.c, type_traits)."""

PREC_F32 = "prec_f32"
"""`Tensor.param` of a product whose sources may not be rounded to f16 (ggml_prec_set_src)."""
ACC_F32 = "acc_f32"
"""`Tensor.param` of a product that is summed in f32 (ggml_prec_set_acc), where that decides sizes."""

VIEW_OPS = frozenset(("VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"))
"""Operations that compute nothing (ggml/src/ggml-backend.cpp, ggml_is_view_op)."""


next_serial = count().__next__
"""Numbers tensors in the order in which they are made."""


class Buffer(NamedTuple):
    """Memory that exists before the graph: weights, or a cache."""

    name: str
    """ggml's buffer type: CUDA0, CUDA_Host, CPU, CPU_REPACK, …"""
    backends: tuple[int, ...]
    """Scheduler backends that can work on it in place, the preferred one first (ggml_backend_supports_buft)."""
    is_host: bool
    is_weights: bool
    """GGML_BACKEND_BUFFER_USAGE_WEIGHTS: operations follow their weights, and weights may be copied for one split."""


class Tensor:
    """`ggml_tensor` without data. `op` is "NONE" for what is not computed: inputs, weights, caches."""

    __slots__ = (
        "allocated", "backend", "block", "buffer", "copies", "is_input", "is_output", "n_bytes", "n_children", "n_views", "nb",
        "ne", "op", "param", "seen", "serial", "src", "type", "view_offs", "view_src",
    )  # fmt: skip

    op: str
    type: str
    ne: Shape
    """Elements per dimension, the contiguous one first."""
    nb: Shape
    """Bytes from one to the next in each dimension."""
    src: list["Tensor | None"]
    view_offs: int
    view_src: "Tensor | None"
    """Whose memory this is; never itself a view."""
    n_bytes: int
    """ggml_nbytes; -1 for a view, whose size hardly ever matters (see `nbytes`)."""
    param: Any
    """What decides sizes or support beyond shapes: a unary operation's name, attention's (max_bias, logit_softcap).

    Of a weight or a cache its home (params.py).
    """
    buffer: Buffer | None
    is_input: bool
    is_output: bool
    serial: int
    """How many tensors were made before it; a copy has its original's."""
    seen: bool
    """Already in the graph."""
    backend: int
    """Scheduler: which backend computes it; -1: not decided."""
    copies: dict[int, list["Tensor"]] | None
    """Scheduler: its copies on other backends."""
    n_children: int
    """Allocator: readers that are still to come, and views likewise."""
    n_views: int
    allocated: bool
    """Allocator: has the memory `block`."""
    block: int

    def __init__(
        self,
        op: str,
        type: str,  # noqa: A002 - ggml's own name for it
        ne: Shape,
        src: "list[Tensor | None]",
        nb: Shape | None = None,
        view_src: "Tensor | None" = None,
        view_offs: int = 0,
    ) -> None:
        """Make a tensor; without `nb` it lies contiguous (ggml_new_tensor_impl)."""
        self.op = op
        self.type = type
        self.ne = ne
        self.src = src
        self.serial = next_serial()
        if nb is None:
            block, size = BLOCKS[type]
            nb1 = ne[0] // block * size
            nb2 = nb1 * ne[1]
            nb3 = nb2 * ne[2]
            self.nb = (size, nb1, nb2, nb3)
            self.n_bytes = nb3 * ne[3]
        else:
            self.nb = nb
            self.n_bytes = -1
        if view_src is None:
            self.view_src = None
        else:
            self.view_src = view_src.view_src or view_src
            self.view_offs = view_offs + view_src.view_offs if view_src.view_src is not None else view_offs
        self.buffer = None
        self.is_input = self.is_output = self.seen = False
        self.backend = -1
        self.n_children = self.n_views = 0
        self.allocated = False
        self.copies = None
        self.param = None

    def __repr__(self) -> str:
        """`MUL_MAT f32[4096, 512]`, for people who look for a difference."""
        return f"{self.op} {self.type}{list(self.ne)}"


def summed_in_f32(cur: Tensor) -> Tensor:
    """The same; the product under its bias and its scale is summed in f32 (ggml_prec_set_acc)."""
    product: Tensor | None = cur
    while product is not None and product.op in ("ADD", "MUL"):
        product = product.src[0]
    if product is not None and product.op == "MUL_MAT":
        product.param = ACC_F32
    return cur


def new_tensor(type: str, ne0: int, ne1: int = 1, ne2: int = 1, ne3: int = 1) -> Tensor:  # noqa: A002 - ggml's own name for it
    """A tensor that is not computed: ggml_new_tensor_1d … _4d."""
    return Tensor("NONE", type, (ne0, ne1, ne2, ne3), [])


def new_input(type: str, ne0: int, ne1: int = 1, ne2: int = 1, ne3: int = 1) -> Tensor:  # noqa: A002 - ggml's own name for it
    """The same, filled by the caller before each run: ggml_set_input."""
    t = Tensor("NONE", type, (ne0, ne1, ne2, ne3), [])
    t.is_input = True
    return t


def row_size(type: str, n: int) -> int:  # noqa: A002 - ggml's own name for it
    """Bytes of `n` contiguous elements (ggml_row_size); like it, cut off where `n` is no multiple of the block."""
    block, size = BLOCKS[type]
    return size * n // block


def is_quantized(type: str) -> bool:  # noqa: A002 - ggml's own name for it
    """Stored in blocks (ggml_is_quantized)."""
    return BLOCKS[type][0] > 1


def nelements(t: Tensor) -> int:
    """How many elements (ggml_nelements)."""
    ne = t.ne
    return ne[0] * ne[1] * ne[2] * ne[3]


def nbytes(t: Tensor) -> int:
    """Bytes from the first element to the last, gaps included (ggml_nbytes)."""
    if t.n_bytes < 0:
        t.n_bytes = _strided_bytes(t.type, t.ne, t.nb)
    return t.n_bytes


def _strided_bytes(type: str, ne: Sequence[int], nb: Sequence[int]) -> int:  # noqa: A002 - ggml's own name for it
    if min(ne) <= 0:
        return 0
    block, size = BLOCKS[type]
    first = size + (ne[0] - 1) * nb[0] if block == 1 else ne[0] * nb[0] // block
    return first + sum((n - 1) * b for n, b in zip(ne[1:], nb[1:], strict=True))


def is_contiguous(t: Tensor, n: int = 0) -> bool:
    """Without gaps above dimension `n`; dimensions of one element do not count (ggml_is_contiguous_n)."""
    if t.view_src is None:
        return True
    block, size = BLOCKS[t.type]
    ne, nb = t.ne, t.nb
    if ne[0] != block and nb[0] != size:
        return False
    expected = ne[0] // block * size
    for i in range(1, 4):
        if i > n:
            if ne[i] != 1 and nb[i] != expected:
                return False
            expected *= ne[i]
        else:
            expected = ne[i] * nb[i]
    return True
