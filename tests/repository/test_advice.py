"""Which file is recommended, and why."""

from types import SimpleNamespace

import pytest

from fitplug.conversion.stored import bits_per_parameter
from fitplug.formats.header import Header, Tensor
from fitplug.planner.records import Range, Request, Speed
from fitplug.repository.advice import QUALITY, Row, advise, best_of

N = 1 << 20


class Devices:
    """A machine's names."""

    def device_names(self):
        return ["CUDA0"]


def row(label, bits, *, place="gpu", n_ctx=32768, speed=10.0, fits=True, n_params=8):
    """A row of a made-up model with so many bits a weight."""
    n_bytes = int(N * bits / 8)
    header = Header(format="gguf", metadata={}, tensors={"a": Tensor("a", "q", (N,), n_bytes, 0)}, n_bytes=n_bytes)
    settings = SimpleNamespace(n_cpu_moe=1 if place == "experts" else 0, overrides=())
    estimate = SimpleNamespace(
        settings=settings,
        resolved=SimpleNamespace(n_ctx=n_ctx),
        layer_devices=["CPU"] if place == "layers" else ["CUDA0"],
        n_bytes=lambda *_: 0 if place == "host" else 1,
    )
    model = SimpleNamespace(n_ctx_train=131072, n_params=n_params)
    plan = SimpleNamespace(estimate=estimate, machine=Devices(), model=model, request=Request(), fits=fits,
                           speed=Speed(Range(speed, speed), None))  # fmt: skip
    return Row(f"hf:a/b:{label}", label, SimpleNamespace(), n_bytes, header, plan)


ALL = [row("Q2_K", 3.2), row("Q4_K_M", 4.9), row("Q6_K", 6.56), row("Q8_0", 8.5), row("F16", 16.0, place="layers", speed=2.0)]


@pytest.mark.parametrize("goal", ["balanced", "speed", "context", "quality"])
def test_what_is_recommended_fits(goal):
    """Whatever comes first; and where nothing fits, nothing is."""
    advice = advise([*ALL, row("BIG", 20.0, fits=False)], goal)
    assert advice.row.fits
    assert advise([row("BIG", 20.0, fits=False)], goal) is None
    assert advise([], goal) is None


def test_bits_that_do_not_show_are_not_paid_for():
    """Q6_K rather than Q8_0; the most bits there are only when quality comes first."""
    assert advise(ALL, "balanced").row.label == "Q6_K"
    assert advise(ALL, "quality").row.label == "F16"


def test_context_beats_bits_from_a_good_quality_on():
    """Q6_K with 8k is worth less than Q4_K_M with 16k, but Q2_K with 128k is not worth more."""
    rows = [row("Q2_K", 3.2, n_ctx=131072), row("Q4_K_M", 4.9, n_ctx=16384), row("Q6_K", 6.56, n_ctx=8192)]
    assert advise(rows, "balanced").row.label == "Q4_K_M"
    assert advise(rows, "context").row.label == "Q4_K_M"


def test_without_room_on_the_gpu_speed_decides():
    """Among those without large loss."""
    rows = [
        row("Q2_K", 3.2, place="layers", speed=9),
        row("Q4_K_M", 4.9, place="layers", speed=6),
        row("Q8_0", 8.5, place="layers", speed=3),
    ]
    assert advise(rows, "balanced").row.label == "Q4_K_M"
    assert "not wholly on a GPU" in advise(rows, "balanced").reason


def test_a_full_disk_changes_the_choice_or_is_said():
    """What cannot be stored is not recommended while something else can be."""
    assert advise(ALL, "balanced", free_bytes=int(N * 5 / 8)).row.label == "Q4_K_M"
    assert "not enough disk space" in advise(ALL, "balanced", free_bytes=1).reason


def test_across_repositories_the_larger_model_that_is_on_the_gpu_wins():
    """But not one that has to run from the host's memory."""
    small, large = advise([row("Q4_K_M", 4.9, n_params=4)], "balanced"), advise([row("Q4_K_M", 4.9, n_params=9)], "balanced")
    huge = advise([row("Q4_K_M", 4.9, n_params=70, place="layers")], "balanced")
    assert best_of([small, large, huge]) is large
    assert best_of([]) is None


def test_across_repositories_one_that_the_disk_takes_is_before_one_that_it_does_not():
    """Whatever else speaks for the other."""
    small, large = (advise([row("Q4_K_M", 4.9, n_params=n)], "balanced", free) for n, free in ((4, None), (9, 1)))
    assert best_of([large, small]) is small


def test_words_for_quality_follow_the_bits():
    """More bits never sound worse."""
    assert [limit for limit, _ in QUALITY] == sorted((limit for limit, _ in QUALITY), reverse=True)
    assert row("Q8_0", 8.5).quality == "no loss to see"
    assert row("Q2_K", 2.6).quality == "very large loss"
    assert bits_per_parameter(row("x", 4.5).header) == pytest.approx(4.5)
