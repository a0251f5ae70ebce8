"""What was computed with unknowns is true of other numbers, or the trace says that it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.memory.graph.unknowns import Trace, Unknown
from fitplug.units import pad

NUMBERS = st.integers(1, 1 << 20)


def _computed(a, b):
    """Something of everything that graphs do with lengths."""
    found = [a + 1, 1 + a, a - b, 7 - b, a * b, 3 * a, a // 3, 100 // a, a % b, 5 % b, -a, pad(max(1, -(-a // 4)), 256)]
    found.append(min(a, b) if a % 256 else max(a, 4096))
    found += [sum(((n - 1) * 4 for n in (a, b)), 0), b"x" * (a > b) and 1]
    if a == b or not a < 512 or b in (1, 2):
        found.append(a // 256)
    return found


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_a_trace_computes_what_the_numbers_would(a, b, other_a, other_b):
    """If it answers at all, and always for those that it was written with."""
    trace = Trace(a, b)
    found = _computed(*trace.unknowns)
    for values in ((a, b), (other_a, other_b)):
        numbers = trace.at(*values)
        if numbers is None:
            assert values != (a, b)
            continue
        assert [numbers[n.number] if isinstance(n, Unknown) else n for n in found] == _computed(*values)


@pytest.mark.parametrize("use", [range, hash, "abc".__getitem__, [0].__mul__, lambda n: {n: 1}, lambda n: n in {2, 3}])
def test_whatever_needs_an_int_is_true_of_that_one_alone(use):
    """Nothing takes the number out of a trace unnoticed."""
    trace = Trace(2)
    use(trace.unknowns[0])

    assert trace.at(2) is not None
    assert trace.at(3) is None


@pytest.mark.parametrize("use", [lambda n: n * 0.5, lambda n: n / 2, lambda n: n + "", lambda n: n + Trace(1).unknowns[0]])
def test_what_no_trace_can_do_again_is_refused(use):
    """Fractions and text."""
    with pytest.raises(TypeError):
        use(Trace(2).unknowns[0])
