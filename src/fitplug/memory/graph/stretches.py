"""What one placed segment asks of memory, in blocks of its own and of others (`GraphAllocator`).

It depends on the segment's nodes, on the copies that are made in it, and on a few facts about what lies beyond: of each tensor
that others look at as well, whether it is there, and whether it is needed afterwards. So it is worked out once for equal ones.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from fitplug.memory.graph.backends import Backend, Uses
from fitplug.memory.graph.pieces import Placed, without_sources
from fitplug.memory.graph.program import FREE, GraphAllocator, Program, Step
from fitplug.memory.graph.scheduler import MAX_SRC
from fitplug.memory.graph.segments import UnprovenError
from fitplug.memory.graph.tensor import Tensor


class Demand(NamedTuple):
    """A tensor that needs memory."""

    number: int
    """Which of the sample has its size; -1 - bytes for a weight's copy."""
    backend: int
    is_copy: bool = False
    copied: tuple[int, ...] = ()
    """Which of its sources are copies."""


class Facts(NamedTuple):
    """Of a tensor that several segments look at, in one of them."""

    is_there: bool
    backend: int
    """Of its block."""
    is_read_later: bool
    n_views_end: int = 0
    """How many views of it that others look at as well are read here for the last time."""
    is_viewed_later: bool = False


class Begin(NamedTuple):
    """A split, or what a segment has of it."""

    at: int
    backend: int
    optimizes: bool
    """It is long enough for its backend to look for kernels to fuse."""
    inputs: tuple[int, ...] = ()
    """Places in the cast of what is copied before it; -1 for what lies in a buffer elsewhere, -2 - n for foreign tensor n."""


class Question(NamedTuple):
    """All that it depends on what a segment asks of memory, besides the segment."""

    begins: tuple[Begin, ...]
    replaced: tuple[tuple[int, int, int], ...]
    """(node, which source, copy): its own copies are counted from 0, those of other segments are -1 - n."""
    guests: tuple[Facts, ...]
    foreign: tuple[tuple["Stranger", Facts], ...]
    """What is copied here for other segments."""
    copies: tuple[Facts, ...]
    """Made in other segments."""
    own: tuple[tuple[Demand, bool], ...]
    """What its own copies take, and whether they are read later."""
    exports: tuple[tuple[int, Facts], ...]
    """Its nodes that others look at, by place."""


class Stranger(NamedTuple):
    """A tensor that is copied here for other segments."""

    like: int
    """Its number in the sample."""
    owner: int | None
    """Place of what it is a view of, as in `Begin.inputs`; None also for a view of what is in a buffer."""


class Course:
    """What is asked of a buffer, whichever of several equal backends' it is."""

    def __init__(
        self, backend: int, steps: Sequence[Step], demands: Sequence[Demand], n_blocks: int, exports: Sequence[int]
    ) -> None:
        """`backend` is the first one that is equal to the one that is asked; `exports` are blocks that are handed on."""
        self.backend, self.steps, self.demands, self.n_blocks, self.exports = backend, steps, demands, n_blocks, exports
        self.content: Hashable = (backend, tuple(steps), tuple(demands), n_blocks, tuple(exports))
        """Equal for equal ones."""


class Ask(NamedTuple):
    """A stretch's course on one backend."""

    backend: int
    course: Course
    outer: Sequence[int]
    """Which of the stretch's outer blocks the first ones of the course are: those that it frees, or parts of them."""
    exports: Sequence[int]
    """Which of the stretch's exports those of the course are."""


class Stretch:
    """What a segment asks of memory; the outer blocks come first: of its guests, of foreign tensors, and of others' copies."""

    def __init__(
        self, made: Program, demands: Sequence[Demand], remains: Sequence[bool], exports: Sequence[tuple[bool, int, int]],
        alike: Sequence[int],
    ) -> None:  # fmt: skip
        self.remains = remains
        """Whether the tensors of the outer blocks are there behind it."""
        self.exports = exports
        """Of its nodes that others look at, and then of its copies: whether it is there, its block, and that one's backend."""
        backends = dict.fromkeys([made.blocks[block] for _, block, _ in made.steps])
        self.asks = [self._ask(b, made, demands, alike) for b in backends]
        """Of each backend whose buffer it asks."""

    def _ask(self, backend: int, made: Program, demands: Sequence[Demand], alike: Sequence[int]) -> Ask:
        steps = [step for step in made.steps if made.blocks[step[1]] == backend]
        blocks = sorted({block for _, block, _ in steps})
        numbers = {block: i for i, block in enumerate(blocks)}
        wanted: dict[int, int] = {}
        steps = [(kind, numbers[block], wanted.setdefault(n, len(wanted)) if kind != FREE else 0) for kind, block, n in steps]
        needed = [demands[n]._replace(backend=alike[demands[n].backend]) for n in wanted]
        n_outer = len(self.remains)
        shown = [i for i, (there, block, _) in enumerate(self.exports) if there and block >= n_outer and block in numbers]
        course = Course(alike[backend], steps, needed, len(blocks), [numbers[self.exports[i][1]] for i in shown])
        return Ask(backend, course, [block for block in blocks if block < n_outer], shown)


class KnownUses(Uses):
    """How often each of some nodes is a source in the whole graph."""

    def __init__(self, nodes: Sequence[Tensor], uses: Sequence[int]) -> None:
        """`uses` are the nodes'."""
        super().__init__(nodes, {})
        self._by_id = {id(t): n for t, n in zip(nodes, uses, strict=True)}

    def of(self, t: Tensor) -> int:
        """Readers of `t`."""
        return self._by_id[id(t)]


IN_A_BUFFER = -1
_BEHIND = Tensor("NONE", "f32", (1, 1, 1, 1), [])


class Walk:
    """The way through one segment.

    Args:
        placed: it.
        asked: what lies beyond.
        sources: of its own copies, then of those that are made in other segments.
        foreign: those of the tensors that are copied here for other segments.
        backends: all.
        alike: of each of them the first one that is equal to it.
        lasting: copies and inputs stay, as a pipeline's do.
    """

    def __init__(
        self,
        placed: Placed,
        asked: Question,
        sources: Sequence[Tensor],
        foreign: Sequence[Tensor],
        backends: Sequence[Backend],
        alike: Sequence[int],
        *,
        lasting: bool,
    ) -> None:
        self.piece, self.asked, self.backends, self.alike, self.lasting = placed.piece, asked, backends, alike, lasting
        copies = [self._copy(t) for t in sources]
        self.own, self.others = copies[: len(asked.own)], copies[len(asked.own) :]
        self.foreign = [without_sources(t) for t in foreign]
        for t, (stranger, _) in zip(self.foreign, asked.foreign, strict=True):
            if stranger.owner is not None:
                t.view_src, t.view_offs = self._tensor(stranger.owner), 0
        self.outer = [*self.piece.guests, *self.foreign, *self.others]
        self.facts = (*asked.guests, *[facts for _, facts in asked.foreign], *asked.copies)
        self.piece.put(placed.backends, placed.guests)
        for t in self.piece.cast:
            t.n_children = t.n_views = 0
            t.allocated = False

    def _tensor(self, place: int) -> Tensor:
        return self.piece.cast[place] if place >= 0 else self.foreign[-2 - place]

    def _copy(self, t: Tensor) -> Tensor:
        copy = Tensor("NONE", t.type, t.ne, [], t.nb)
        copy.is_input = copy.is_output = copy.allocated = self.lasting
        return copy

    def stretch(self) -> Stretch:
        """What it asks of memory; the piece is left as it was.

        Raises:
            UnprovenError: it is not the segment's own business.
        """
        sources = [t.src for t in self.piece.nodes]
        for i, j, n in self.asked.replaced:
            t = self.piece.nodes[i]
            t.src = [*t.src]
            t.src[j] = self.own[n] if n >= 0 else self.others[-1 - n]
        try:
            return self._walked(*self._ordered(self._kept()))
        finally:
            for t, src in zip(self.piece.nodes, sources, strict=True):
                t.src = src

    def _kept(self) -> dict[int, list[Tensor]]:
        """What must be kept until a node is computed, by that node's id (`Scheduler._optimize`)."""
        found: dict[int, list[Tensor]] = {}
        nodes, begins = self.piece.nodes, self.asked.begins

        def keep(tensor: Tensor, until: Tensor) -> None:
            if until is _BEHIND:
                raise UnprovenError("a fused kernel ends where the segment does")
            kept = found.setdefault(id(until), [])
            if not any(t is tensor for t in kept):
                kept.append(tensor)

        uses = KnownUses(nodes, self.piece.template.uses)
        ends = [*[begin.at for begin in begins[1:]], len(nodes)]
        for begin, end in zip(begins, ends, strict=True):
            if begin.optimizes:
                after = nodes[end] if end < len(nodes) else _BEHIND
                self.backends[begin.backend].graph_optimize(nodes[begin.at : end], after, uses, keep)
        return found

    def _ordered(self, kept: dict[int, list[Tensor]]) -> tuple[list[Tensor], list[int]]:
        """Nodes with copies and dependencies between them, and their backends (`Scheduler._ordered`)."""
        nodes: list[Tensor] = []
        backends: list[int] = []
        begins = {begin.at: begin for begin in self.asked.begins}
        own = iter(self.own)
        for i, node in enumerate(self.piece.nodes):
            begin = begins.get(i)
            for place in begin.inputs if begin is not None else ():
                if place != IN_A_BUFFER:
                    nodes.append(_dependency([self._tensor(place)]))
                    backends.append(node.backend)
                nodes.append(next(own))
                backends.append(begin.backend if begin is not None else -1)
            nodes.append(node)
            backends.append(node.backend)
            waiting = kept.get(id(node), [])
            for k in range(0, len(waiting), MAX_SRC):
                nodes.append(_dependency(waiting[k : k + MAX_SRC]))
                backends.append(node.backend)
        return nodes, backends

    def _walked(self, nodes: list[Tensor], backends: list[int]) -> Stretch:
        allocator = GraphAllocator(self.backends)
        made, asked = allocator.made, self.asked
        for t, facts in zip(self.outer, self.facts, strict=True):
            t.allocated, t.block = facts.is_there, len(made.blocks)
            t.is_output = t.is_output or (self.lasting and t.is_input)
            made.blocks.append(facts.backend)
        allocator.count(nodes, backends)
        self._count_beyond()
        allocator.walk(nodes, backends, ())
        numbers = dict(zip(map(id, self.piece.nodes), self.piece.template.numbers, strict=False))
        known = {id(t): demand for t, (demand, _) in zip(self.own, asked.own, strict=True)}
        copied: dict[int, tuple[int, ...]] = {id(self.piece.nodes[i]): () for i, _, _ in asked.replaced}
        for i, j, _ in asked.replaced:
            copied[id(self.piece.nodes[i])] += (j,)
        demands = [
            known.get(id(t)) or Demand(numbers[id(t)], b, copied=copied.get(id(t), ()))
            for t, b in zip(allocator.tensors, made.demands, strict=True)
        ]
        shown = [*[self.piece.nodes[place] for place, _ in asked.exports], *([] if self.lasting else self.own)]
        exports = [(True, t.block, made.blocks[t.block]) if t.allocated else (False, 0, -1) for t in shown]
        return Stretch(made, demands, [t.allocated for t in self.outer], exports, self.alike)

    def _count_beyond(self) -> None:
        """Readers and views in other segments: one stands for all that come later."""
        asked, nodes = self.asked, self.piece.nodes
        exports = [(nodes[place], facts) for place, facts in asked.exports]
        lent = {id(t) for t, _ in exports}
        for t, facts in (*zip(self.outer, self.facts, strict=True), *exports):
            t.n_children += facts.is_read_later
            t.n_views = facts.n_views_end + facts.is_viewed_later
        for view, owner in self.piece.template.views:
            t = self.piece.cast[owner]
            if id(nodes[view]) not in lent and (owner >= len(nodes) or id(t) in lent):
                t.n_views += 1
        for t, (_, is_read_later) in zip(self.own, asked.own, strict=True):
            t.n_children += is_read_later


def _dependency(src: Sequence[Tensor]) -> Tensor:
    first = src[0]
    return Tensor("NONE", first.type, first.ne, [*src], first.nb, first)
