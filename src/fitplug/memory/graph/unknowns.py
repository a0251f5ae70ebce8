"""Numbers that are not known yet: what is computed with them, and what is decided by them, is written down to be done again.

Shapes of a graph are computed from the context's length, and here and there something is decided by it. A drawing that is given
an `Unknown` in its place computes with it as with a number; its `Trace` can then say what all of it is for another number, as
long as every decision is the same. No use of an unknown goes unnoticed: it is no int, so whatever is not an operation below
has to ask for the int that it stands for, and then the trace holds for that one alone.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

Operation: TypeAlias = Callable[[int, int], int]


class Step(NamedTuple):
    """An operation on earlier numbers of a trace."""

    operation: Operation
    left: int
    """Which number."""
    right: int
    """Which number; -1: `constant`."""
    constant: int


class Trace:
    """All that was made of some unknowns, in order."""

    def __init__(self, *values: int) -> None:
        """Of as many unknowns, which have these values while it is written."""
        self.unknowns = [Unknown(self, i, n) for i, n in enumerate(values)]
        self._n_numbers = len(values)
        self._known: dict[Step, Unknown | bool] = {}
        """What came of each step: another number, or a decision."""

    def at(self, *values: int) -> Sequence[int] | None:
        """Every number, with other values of the unknowns; None where a decision would be another."""
        numbers = list(values)
        for (operation, left, right, constant), result in self._known.items():
            found = operation(numbers[left], constant if right < 0 else numbers[right])
            if result is True or result is False:
                if found != result:
                    return None
            else:
                numbers.append(found)
        return numbers

    def computed(self, operation: Operation, left: "Unknown", right: object) -> Any:
        """Another number."""
        step = self._step(operation, left, right)
        if step is None:
            return NotImplemented
        found = self._known.get(step)
        if found is None:
            n = operation(left.value, right.value if isinstance(right, Unknown) else step.constant)
            found = self._known[step] = Unknown(self, self._n_numbers, n)
            self._n_numbers += 1
        return found

    def decided(self, operation: Operation, left: "Unknown", right: object) -> Any:
        """What is true of numbers."""
        step = self._step(operation, left, right)
        if step is None:
            return NotImplemented
        found = self._known.get(step)
        if found is None:
            other = right.value if isinstance(right, Unknown) else step.constant
            found = self._known[step] = bool(operation(left.value, other))
        return found

    def _step(self, operation: Operation, left: "Unknown", right: object) -> Step | None:
        if isinstance(right, Unknown):
            return Step(operation, left.number, right.number, 0) if right.trace is self else None
        return Step(operation, left.number, -1, right) if isinstance(right, int) else None


def _computes(operation: Operation) -> Callable[["Unknown", object], Any]:
    return lambda self, other: self.trace.computed(operation, self, other)


def _decides(operation: Operation) -> Callable[["Unknown", object], Any]:
    return lambda self, other: self.trace.decided(operation, self, other)


def _turned(operation: Operation) -> Operation:
    return lambda left, right: operation(right, left)


class Unknown:
    """A number of a trace."""

    __slots__ = ("number", "trace", "value")

    def __init__(self, trace: Trace, number: int, value: int) -> None:
        """Which of the trace's numbers, and what it is while that is written."""
        self.trace, self.number, self.value = trace, number, value

    __add__ = __radd__ = _computes(operator.add)
    __mul__ = __rmul__ = _computes(operator.mul)
    __sub__, __rsub__ = _computes(operator.sub), _computes(_turned(operator.sub))
    __floordiv__, __rfloordiv__ = _computes(operator.floordiv), _computes(_turned(operator.floordiv))
    __mod__, __rmod__ = _computes(operator.mod), _computes(_turned(operator.mod))
    __lt__, __le__, __gt__, __ge__ = map(_decides, (operator.lt, operator.le, operator.gt, operator.ge))
    __eq__, __ne__ = _decides(operator.eq), _decides(operator.ne)

    def __neg__(self) -> Any:
        return self.trace.computed(operator.mul, self, -1)

    def __bool__(self) -> bool:
        return bool(self.trace.decided(operator.ne, self, 0))

    def __index__(self) -> int:
        """The int that it is; the trace holds for no other from now on."""
        self.trace.decided(operator.eq, self, self.value)
        return self.value

    def __hash__(self) -> int:
        return hash(self.__index__())

    def __repr__(self) -> str:
        return str(self.value)
