"""Which layers are left out."""

from hypothesis import given
from hypothesis import strategies as st

from fitplug.memory.graph.layers import ATTEMPTS, repeats, shortened

kept = st.sampled_from(ATTEMPTS[:-1])
patterns = st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True)


@given(st.lists(st.integers(0, 2), max_size=40), kept)
def test_kept_layers_are_in_order_and_hold_every_kind(classes, keep):
    """And start with the first."""
    layers = [il for il, _ in shortened(classes, keep)]

    assert layers == sorted(set(layers))
    assert {classes[il] for il in layers} == set(classes)
    assert layers[:1] == ([0] if classes else [])


@given(patterns, st.integers(1, 60), kept)
def test_whole_repetitions_are_left_out(pattern, n, keep):
    """The rest is the same row of kinds with fewer repetitions, by an even number."""
    classes = pattern * n
    layers = [classes[il] for il, _ in shortened(classes, keep)]

    assert len(classes) - len(layers) >= 0
    assert (len(classes) - len(layers)) % 2 == 0
    assert layers[: len(pattern)] == pattern
    assert layers[-len(pattern) :] == pattern


def test_a_dense_model_is_cut_to_a_handful():
    """79 equal layers and the last."""
    layers = list(shortened(["a"] * 79 + ["last"], 4))

    assert [il for il, _ in layers] == [0, 1, 2, 3, 4, 79]
    assert [run for _, run in layers] == [1, 1, 1, 1, 1, 0]


def test_a_window_pattern_is_cut_as_a_whole():
    """gemma3: five windowed layers and a full one, 62 in all."""
    classes = [("full" if il % 6 == 5 else "windowed") for il in range(61)] + ["last"]
    layers = [il for il, _ in shortened(classes, 4)]

    assert len(layers) == 4 * 6 + 2
    assert layers[-2:] == [60, 61]


def test_one_of_each_kind():
    """For the bound on the token's graph."""
    assert [il for il, _ in shortened([*"aabab", "last"], 1)] == [0, 2, 5]


def test_a_state_that_came_before_is_a_proof():
    """Every run needs one; cycles must divide what was left out."""
    assert repeats([], 4)
    assert repeats([(1, "x"), (1, "a"), (1, "a")], 4)
    assert repeats([(1, "x"), (1, "a"), (1, "b"), (1, "a")], 4)
    assert not repeats([(1, "a"), (1, "b"), (1, "c"), (1, "a")], 4)
    assert repeats([(1, c) for c in "xyabcabca"], 9)
    assert not repeats([(1, c) for c in "xabcdabcda"], 9)
    assert not repeats([(1, "a"), (1, "a"), (2, "a"), (2, "b")], 4)
