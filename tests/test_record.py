"""A record is what `dataclass(frozen=True, slots=True, kw_only=True)` makes, and is made faster."""

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, is_dataclass, replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.record import record


def members():
    """The same class body twice."""

    class Body:
        """A point."""

        x: int
        y: int = 2
        names: tuple[str, ...] = ()
        table: dict[str, int] = field(default_factory=dict)

        @property
        def sum(self) -> int:
            return self.x + self.y

    return Body


Ours = record(members())
Theirs = dataclass(frozen=True, slots=True, kw_only=True)(members())


@record
class Plain:
    """At the top of a module, as pickle wants it."""

    x: int
    names: tuple[str, ...] = ()


@record
class Nothing:
    """No field."""


class Pair(NamedTuple):
    one: object
    other: object


VALUES = st.fixed_dictionaries(
    {"x": st.integers()},
    optional={"y": st.integers(), "names": st.tuples(st.text()), "table": st.dictionaries(st.text(), st.integers())},
)


@given(VALUES, VALUES)
def test_it_behaves_as_the_dataclass_does(first, second):
    ours, theirs = Pair(Ours(**first), Ours(**second)), Pair(Theirs(**first), Theirs(**second))

    assert repr(ours.one) == repr(theirs.one)
    assert asdict(ours.one) == asdict(theirs.one)
    assert (ours.one == ours.other) == (theirs.one == theirs.other)
    assert asdict(replace(ours.one, **second)) == asdict(replace(theirs.one, **second))
    assert ours.one.sum == theirs.one.sum


def test_what_it_says_of_itself_is_the_same():
    assert [f.name for f in fields(Ours)] == [f.name for f in fields(Theirs)]
    assert [(f.type, f.kw_only, f.init, f.repr) for f in fields(Ours)] == [
        (f.type, f.kw_only, f.init, f.repr) for f in fields(Theirs)
    ]
    assert list(inspect.signature(Ours).parameters) == list(inspect.signature(Theirs).parameters)
    assert is_dataclass(Ours)
    assert Ours.__doc__ == "A point."
    assert Ours.__qualname__ == Theirs.__qualname__


@pytest.mark.parametrize(("words", "said"), [({}, "x"), ({"x": 1, "z": 2}, "z")])
def test_missing_and_unknown_values_are_named(words, said):
    with pytest.raises(TypeError, match=f"__init__\\(\\).*'{said}'"):
        Ours(**words)


def test_values_must_be_named():
    with pytest.raises(TypeError):
        Ours(1)


def test_it_cannot_be_changed():
    made = Plain(x=1)

    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        made.x = 2
    with pytest.raises(FrozenInstanceError):
        made.z = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del made.x
    assert not hasattr(made, "__dict__")


def test_every_one_has_a_default_of_its_own():
    assert Ours(x=1).table is not Ours(x=1).table


def test_equal_ones_hash_alike_and_other_classes_are_never_equal():
    assert hash(Plain(x=1)) == hash(Plain(x=1))
    assert Plain(x=1) != Ours(x=1)
    assert {Plain(x=1), Plain(x=1), Plain(x=2)} == {Plain(x=2), Plain(x=1)}


def test_one_with_a_dict_cannot_be_hashed():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Ours(x=1))


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_it_can_be_copied_and_pickled(through):
    made = Plain(x=1, names=("a",))

    assert through(made) == made


def test_one_without_fields_is_a_record_too():
    assert Nothing() == Nothing()
    assert repr(Nothing()) == "Nothing()"


def test_a_method_of_the_class_wins():
    @record
    class Loud:
        x: int

        def __repr__(self):
            return "LOUD"

    assert repr(Loud(x=1)) == "LOUD"
