"""Whether llama.cpp would load a file's tensors: its loaders' statements, carried out on a header.

`loaders.txt` has for each architecture what load_arch_tensors (src/models/) does, as lists in brackets that a script makes of
llama.cpp's source (fixtures/truth/loaders.py), and then what the graph's constructor asserts about the hyper-parameters. Here
they are run as llama_model_loader::create_tensor and check_tensor_dims (src/llama-model-loader.cpp) would: a tensor that must
be there and is not, one of another shape, and one that nothing asked for (done_getting_tensors) are refusals. A value that is
not known here ends the run without one: nothing is refused that llama.cpp might load.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from operator import add, and_, eq, floordiv, ge, gt, le, lt, mod, mul, ne, or_, sub
from typing import Any, TypeAlias

from fitplug.formats.header import Header
from fitplug.model.hparams_record import Hparams
from fitplug.model.loader_values import NotKnownError, Values

Code: TypeAlias = Any
"""Nested lists; see fixtures/truth/loaders.py for what is in them."""
Value: TypeAlias = Any
"""A whole number, a text, or the shape of a tensor (its `ne`); 0 is also nullptr."""

DUPLICATED, NOT_REQUIRED, SKIP, ALLOW_RESHAPE = 1, 2, 4, 16
"""Flags of llama_model_loader::create_tensor, as the script writes them."""
OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": add, "-": sub, "*": mul, "/": floordiv, "%": mod, "|": or_, "&": and_,
    "==": eq, "!=": ne, "<": lt, ">": gt, "<=": le, ">=": ge, "max": max,
}  # fmt: skip
DATA = __file__.removesuffix("loader.py") + "loaders.txt"
PARTS = ("reads", "before", "load", "graph")
WORD = re.compile(r'[()]|"[^"]*"|[^\s()"]+')
SCALES = (".scale", ".input_scale")
"""Loaded after everything else, beside any weight that was (llama_model_base::load_tensors)."""


class _RefusalError(Exception):
    """llama.cpp stops here; the message says why."""


class _End(Exception):  # noqa: N818 - no error
    """`return`."""


class _Next(Exception):  # noqa: N818 - no error
    """`continue`."""


def refusal(name: str, header: Header, h: Hparams) -> str | None:
    """Why llama.cpp does not load the tensors of this architecture's file; None where nothing is known to speak against it."""
    program = _program(name)
    if program is None:
        return None
    run = _Run(header, Values(header, h, program["reads"]))
    try:
        run.block(program["before"])
        with suppress(_End):
            run.block(program["load"])
        run.done()
        run.asserted(program["graph"])
    except _RefusalError as stopped:
        return str(stopped)
    except (NotKnownError, _Next, ZeroDivisionError):
        return None
    return None


def _program(name: str) -> Mapping[str, Code] | None:
    """The architecture's line of the data, which alone is read."""
    with open(DATA, encoding="utf-8") as file:  # noqa: PTH123 - a start has no time for pathlib
        data = file.read()
    front = f"\n{name} "
    start = data.find(front)
    if start < 0:
        return None
    start += len(front)
    return dict(zip(PARTS, _lists(data[start : data.index("\n", start)]), strict=True))


def _lists(text: str) -> Code:
    """Words in brackets, as nested lists; numbers are numbers."""
    found: list[Code] = []
    above: list[list[Code]] = []
    for word in WORD.findall(text):
        if word == "(":
            above.append(found)
            found = []
        elif word == ")":
            above[-1].append(found)
            found = above.pop()
        else:
            found.append(int(word) if word.lstrip("-").isdigit() else word.strip('"'))
    return found


class _Run:
    """One load_arch_tensors under way."""

    def __init__(self, header: Header, values: Values) -> None:
        self.header, self.values = header, values
        self.known: dict[str, Value] = {"output": 0}
        self.layers: dict[int, dict[str, Value]] = {}
        self.layer: dict[str, Value] = {}
        self.functions: dict[str, tuple[Sequence[str], Code]] = {}
        self.created: set[str] = set()
        self.copied = False
        self.does = {sign: getattr(self, f"_{name}") for sign, name in STATEMENTS.items()}

    # Statements

    def block(self, code: Code) -> None:
        for statement in code:
            self.does[statement[0]](*statement[1:])

    def asserted(self, code: Code) -> None:
        """What a graph's constructor asserts; each is left out where its values are not known."""
        for statement in code:
            try:
                self.block([statement])
            except NotKnownError:
                continue

    def _let(self, name: str, value: Code) -> None:
        self._set(name, self.value(value))

    def _forget(self, name: str) -> None:
        self.values.given[name.removeprefix("h.")] = None

    def _set(self, name: str, value: Value) -> None:
        if name.startswith("layer."):
            self.layer[name] = value
        elif name.startswith("h."):
            self.values.given[name.removeprefix("h.")] = value
        else:
            self.known[name] = value

    def _layer(self, index: Code) -> None:
        il = self.value(index)
        if il >= self.values.h.n_layer_all:
            raise _RefusalError(f"there is more to load than the {self.values.h.n_layer_all} blocks of block_count")
        self.layer = self.layers.setdefault(il, {})

    def _copy(self, to: Code, source: Code) -> None:
        self.copied = True
        self.layers[self.value(to)] = self.layers.setdefault(self.value(source), {})

    def _if(self, condition: Code, then: Code, other: Code = ()) -> None:
        self.block(then if self.value(condition) else other)

    def _try(self, body: Code, otherwise: Code) -> None:
        try:
            self.block(body)
        except _RefusalError:
            self.block(otherwise)

    def _for(self, name: str, first: Code, end: Code, body: Code) -> None:
        for i in range(self.value(first), self.value(end)):
            self.known[name] = i
            try:
                self.block(body)
            except _Next:
                continue

    def _define(self, name: str, parameters: Sequence[str], body: Code) -> None:
        self.functions[name] = (parameters, body)

    def _call(self, name: str, *arguments: Code) -> None:
        if name not in self.functions:
            raise NotKnownError(name)
        parameters, body = self.functions[name]
        before = dict(self.known)
        self.known.update(zip(parameters, map(self.value, arguments), strict=True))
        with suppress(_End):
            self.block(body)
        self.known = before

    def _throw(self, said: str) -> None:
        raise _RefusalError(f"llama.cpp says: {said.strip()}")

    def _assert(self, condition: Code, said: str) -> None:
        if not self.value(condition):
            raise _RefusalError(f"llama.cpp stops at GGML_ASSERT({said})")

    def _return(self) -> None:
        raise _End

    def _continue(self) -> None:
        raise _Next

    def _tensor(self, target: str, name: Code, index: Code, shape: Code, flags: Code) -> None:
        full = self.named(name, index) if isinstance(name, str) else self.value(name[0])
        found = self.create(full, tuple(map(self.value, shape)), self.value(flags))
        if target:
            self._set(target, found)

    def _qkv(self, index: Code, *sizes: Code) -> None:
        """llama_model_base::create_tensor_qkv (src/llama-model.cpp)."""
        il, (n_embd, n_q, n_k, n_v, flags) = self.value(index), map(self.value, sizes)
        at, all_, skip = f"blk.{il}.attn_", n_q + n_k + n_v, flags & SKIP
        optional = NOT_REQUIRED | skip
        fused = self.layer["layer.wqkv"] = self.create(f"{at}qkv.weight", (n_embd, all_), optional)
        fused_bias = self.create(f"{at}qkv.bias", (all_,), optional) if fused or skip else 0
        for part, n in (("q", n_q), ("k", n_k), ("v", n_v)):
            if not fused:
                weight = self.create(f"{at}{part}.weight", (n_embd, n), optional if skip else flags)
                self.layer[f"layer.w{part}"] = weight
            if not fused_bias:
                self.create(f"{at}{part}.bias", (n,), optional)

    def _gate_up(self, index: Code, *sizes: Code) -> None:
        """llama_model_base::create_tensor_gate_up_exps."""
        il, (n_embd, n_ff, n_expert, flags) = self.value(index), map(self.value, sizes)
        optional = NOT_REQUIRED | flags & SKIP
        fused = self.create(f"blk.{il}.ffn_gate_up_exps.weight", (n_embd, 2 * n_ff, n_expert), optional)
        self.layer["layer.ffn_gate_up_exps"] = fused
        if fused:
            return
        for part in ("gate", "up"):
            name = f"blk.{il}.ffn_{part}_exps.weight"
            found = self.create(name, (n_embd, n_ff, n_expert), optional if flags & SKIP else flags)
            self.layer[f"layer.ffn_{part}_exps"] = found

    # Tensors

    def named(self, name: str, index: Code) -> str:
        return name % self.value(index) if "%d" in name else name

    def create(self, name: str, shape: tuple[int, ...], flags: int) -> Value:
        """llama_model_loader::create_tensor, check_tensor_dims."""
        tensor = self.header.tensors.get(name)
        if tensor is None:
            if flags & NOT_REQUIRED:
                return 0
            raise _RefusalError(f"the tensor {name} is missing")
        same = shape == tensor.shape or _trimmed(shape) == _trimmed(tensor.shape)
        if not same and not (flags & ALLOW_RESHAPE and _product(shape) == _product(tensor.shape)):
            expected, got = (" x ".join(map(str, n)) for n in (shape, tensor.shape))
            raise _RefusalError(f"the tensor {name} has the shape {got}, {expected} is expected")
        self.created.add(name)
        return 0 if flags & SKIP else tensor.shape

    def done(self) -> None:
        """llama_model_loader::done_getting_tensors: every tensor of the file was asked for."""
        for name in self.header.tensors:
            if name not in self.created and not self._is_scale(name):
                raise _RefusalError(f"nothing of the architecture is called {name[:60]}")

    def _is_scale(self, name: str) -> bool:
        return any(name.endswith(end) and name.removesuffix(end) + ".weight" in self.scalable for end in SCALES)

    @cached_property
    def scalable(self) -> Collection[str]:
        """What was created; of layers that are passed again scales have other numbers (src/models/hrm-text.cpp)."""
        if not self.copied:
            return self.created
        bases = {name.split(".", 2)[2] for name in self.created if name.startswith("blk.")}
        return {f"blk.{il}.{base}" for il in self.layers for base in bases} | self.created

    # Values

    def value(self, code: Code) -> Value:
        if type(code) is int:
            return code
        if type(code) is str:
            found = self.known.get(code)
            return self._named_value(code) if found is None else found
        sign = code[0]
        operation = OPERATIONS.get(sign)
        if operation is not None:
            return operation(self.value(code[1]), self.value(code[2]))
        return self._other_value(sign, code)

    def _other_value(self, sign: str, code: Code) -> Value:
        if sign == "h":
            return self.values.get(code[1], self.value(code[2]) if len(code) > 2 else 0)
        if sign == "?":
            return self.value(code[2] if self.value(code[1]) else code[3])
        if sign == "!":
            return not self.value(code[1])
        if sign in ("&&", "||"):
            left = self.value(code[1])
            return self.value(code[2]) if bool(left) == (sign == "&&") else left
        if sign == "tensor":
            found = self.header.tensors.get(self.value(code[1]))
            return found.shape if found is not None else 0
        if sign == "ne":
            shape, i = self.value(code[1]), self.value(code[2])
            return shape[i] if i < len(shape) else 1
        return self._text(sign, code)

    def _text(self, sign: str, code: Code) -> str:
        if sign == "'":
            return str(code[1])
        if sign == "text":
            return str(self.value(code[1]))
        if sign == "name":
            return self.named(code[1], code[2])
        raise NotKnownError(sign)

    def _named_value(self, name: str) -> Value:
        if name.startswith("layer."):
            return self.layer.get(name, 0)
        found = self.known[name] = self.values.get(name)
        return found


STATEMENTS = {
    "=": "let", "layer": "layer", "copy": "copy", "if": "if", "for": "for", "try": "try", "def": "define", "call": "call",
    "throw": "throw", "assert": "assert", "unknown": "forget", "return": "return", "continue": "continue", "t": "tensor",
    "qkv": "qkv", "gate_up": "gate_up",
}  # fmt: skip


def _trimmed(shape: Sequence[int]) -> tuple[int, ...]:
    """Without ones at the end, which are no dimensions."""
    n = len(shape)
    while n and shape[n - 1] == 1:
        n -= 1
    return tuple(shape[:n])


def _product(shape: Sequence[int]) -> int:
    n = 1
    for part in shape:
        n *= part
    return n
