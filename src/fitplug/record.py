"""`record`: a frozen, slotted, keyword-only dataclass that is made in a quarter of the time.

`dataclasses.dataclass` compiles six methods for each class, which takes half a millisecond whenever a program starts; fitplug
starts with some thirty records and has 120 ms. Here only `__init__` is compiled, the other methods are shared. What it makes
is a dataclass to everybody who asks: `dataclasses.replace`, `fields`, `asdict`, `copy` and `pickle` work.
"""

from dataclasses import MISSING, Field, FrozenInstanceError, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class with annotated fields a record; its bases are left as they are."""
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    fields = {name: _field(name, kind, body.pop(name, MISSING)) for name, kind in cls.__annotations__.items()}
    shared = {
        "__repr__": _repr, "__eq__": _eq, "__hash__": _hash, "__setattr__": _refuse_set, "__delattr__": _refuse_delete,
        "__getstate__": _state, "__setstate__": _restore,
    }  # fmt: skip
    own = {
        "__qualname__": cls.__qualname__, "__init__": _init(cls, fields), "__slots__": tuple(fields), "__match_args__": (),
        "__dataclass_fields__": fields,
    }  # fmt: skip
    made: type[T] = type(cls)(cls.__name__, cls.__bases__, shared | body | own)  # type: ignore[misc]  # a class of its class
    return made


def _field(name: str, kind: Any, default: Any) -> "Field[Any]":
    made: Field[Any] = default if isinstance(default, Field) else field(default=default)
    made.name, made.type, made.kw_only = name, kind, True
    made._field_type = _PLAIN  # type: ignore[attr-defined]  # noqa: SLF001 - how dataclasses tells a field from a ClassVar
    return made


_PLAIN = field.__globals__["_FIELD"]


def _init(cls: type, fields: "dict[str, Field[Any]]") -> Any:
    """The one method that is compiled: a signature has to be there for error messages, `inspect` and speed."""
    names: dict[str, Any] = {"_set": object.__setattr__, "_left_out": MISSING}
    parameters, lines = [], []
    for name, item in fields.items():
        value, default = name, ""
        if item.default_factory is not MISSING:
            names[f"_make_{name}"], default = item.default_factory, "=_left_out"
            value = f"_make_{name}() if {name} is _left_out else {name}"
        elif item.default is not MISSING:
            names[f"_default_{name}"], default = item.default, f"=_default_{name}"
        parameters.append(name + default)
        lines.append(f"    _set(self, {name!r}, {value})\n")
    signature = "".join(f", {parameter}" for parameter in ["*", *parameters] if parameters)
    exec(f"def __init__(self{signature}):\n{''.join(lines) or '    pass'}", names)  # noqa: S102 - only annotations of our own classes
    names["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"
    return names["__init__"]


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__slots__)


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse_set(_self: Any, name: str, _value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> tuple[Any, ...]:
    return _values(self)


def _restore(self: Any, state: tuple[Any, ...]) -> None:
    for name, value in zip(self.__slots__, state, strict=True):
        object.__setattr__(self, name, value)
