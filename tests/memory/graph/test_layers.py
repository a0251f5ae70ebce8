"""Which layers are left out."""

from hypothesis import given
from hypothesis import strategies as st

from fitplug.memory.graph.layers import ATTEMPTS, ONE_OF_EACH, SAMPLE, SHORT, Cut, Run, shortened

cuts = st.builds(
    Cut,
    st.sampled_from(ATTEMPTS),
    st.dictionaries(st.lists(st.integers(0, 2), max_size=4).map(tuple), st.sampled_from(ATTEMPTS), max_size=4),
)
patterns = st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True)


@given(st.lists(st.integers(0, 2), max_size=40), cuts)
def test_kept_layers_are_in_order_and_hold_every_kind(classes, cut):
    """And start with the first."""
    layers = [il for il, _ in shortened(classes, cut)]

    assert layers == sorted(set(layers))
    assert {classes[il] for il in layers} == set(classes)
    assert layers[:1] == ([0] if classes else [])


@given(patterns, st.integers(1, 60), st.sampled_from(ATTEMPTS))
def test_whole_repetitions_are_left_out(pattern, n, kept):
    """And marked as many as are built; the run says how many are not."""
    classes = pattern * n
    layers = list(shortened(classes, Cut(kept)))
    left_out, rest = divmod(len(classes) - len(layers), len(pattern))
    runs = [run for _, run in layers if run is not None]

    assert rest == 0
    assert [classes[il] for il, _ in layers] == pattern * (n - left_out)
    assert len(runs) == (kept if left_out else 0)
    assert set(runs) == ({Run(0, tuple(pattern), left_out)} if left_out else set())


def test_a_dense_model_is_cut_to_a_handful():
    """79 equal layers and the last."""
    classes = ["a"] * 79 + ["last"]

    run = Run(0, ("a",), 75)

    assert list(shortened(classes, SHORT)) == [(0, run), (1, run), (2, run), (3, run), (79, None)]
    assert [il for il, _ in shortened(classes, Cut(5))] == [0, 1, 2, 3, 4, 79]


def test_a_window_pattern_is_cut_as_a_whole():
    """gemma3: five windowed layers and a full one, 62 in all."""
    classes = [("full" if il % 6 == 5 else "windowed") for il in range(61)] + ["last"]
    layers = [il for il, _ in shortened(classes, SHORT)]

    assert len(layers) == 4 * 6 + 2
    assert layers[-2:] == [60, 61]


def test_one_of_each_kind():
    """For the bound on the token's graph, and for samples."""
    assert [il for il, _ in shortened([*"aabab", "last"], ONE_OF_EACH)] == [0, 2, 5]
    assert [il for il, _ in shortened([*"aabab", "last"], SAMPLE)] == [0, 2, 5]


def test_a_run_that_needs_more_is_kept_longer():
    """Wherever its pattern comes; the others stay as short as they were."""
    classes = ["a"] * 30 + ["b"] * 30
    a, b = Run(0, ("a",), 26), Run(30, ("b",), 26)
    cut = SHORT.longer([b])

    assert [il for il, _ in shortened(classes, cut)] == [*range(4), *range(30, 35)]
    assert [il for il, _ in shortened(classes[::-1], cut)] == [*range(5), *range(30, 34)]
    assert [il for il, _ in shortened(classes, cut.longer([b, a]))] == [*range(5), *range(30, 39)]
    assert [il for il, _ in shortened(classes, cut.longer([b, a]).longer([b]))] == [*range(5), *range(30, 60)]
