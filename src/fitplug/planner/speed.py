"""How fast a plan will be: tokens per second as a range, or nothing where there is no basis.

What each device does for a token is taken from the same placement of weights and caches that the memory arithmetic uses;
`planner.speed_model` turns it into time.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from fitplug.extension import Runner
from fitplug.machine.records import Machine
from fitplug.memory.cache import cache_tensors, cells
from fitplug.memory.estimate import Estimator
from fitplug.memory.placement import Placement, place
from fitplug.memory.records import HOST, Estimate
from fitplug.memory.sizes import alloc_size
from fitplug.model.records import Model
from fitplug.planner.costs import EXPERTS, INPUTS, share_of_experts
from fitplug.planner.hardware import Hardware, hardware_of
from fitplug.planner.records import Range, Speed
from fitplug.planner.speed_host import copy_seconds, host_bandwidth
from fitplug.planner.speed_links import SUPPOSED, Link, link_of, link_seconds
from fitplug.planner.speed_model import TYPE_GROUPS, Kind, Work, generation_seconds, prompt_seconds
from fitplug.planner.speed_table import BACKENDS, HOP, KINDS, PIPELINE
from fitplug.units import format_tokens

DEPTH = 2048
"""Tokens in the context for which the speed is told, or half of it where it is shorter."""
PARTLY = 1.4
"""More spread of the prompt where a part is on the CPU: the link to the GPU differs from machine to machine."""
GUESSED = 1.2
"""More spread of the host's share where its bandwidth is only supposed."""
_TEST_PROMPT = 2048


class Speedometer:
    """Predicts the speed of plans for one model on one machine."""

    def __init__(self, model: Model, machine: Machine, runner: Runner) -> None:
        self.model, self.machine = model, machine
        self._estimator = Estimator(model, machine, runner)
        self._names = machine.device_names()
        self._host = host_bandwidth(machine)
        self._devices: dict[str, Hardware] = {}

    def __call__(self, estimate: Estimate) -> Speed | None:
        """The range of tokens per second; None where a device's kind or bandwidth is unknown."""
        placement = place(self.model, self.machine, estimate.settings)
        depth = min(DEPTH, max(1, estimate.resolved.n_ctx_seq // 2))
        work = self._work(estimate, placement, depth)
        if work is None or not self.model.causal:
            return None
        on_host = work.pop(HOST, None)
        everything = [*work.values(), *([on_host] if on_host is not None else [])]
        bandwidth, told = self._host
        guessed = on_host is not None and not told
        basis = f"with {format_tokens(depth)} tokens in the context"
        basis += f", the host's memory supposed to do {bandwidth // 10**9} GB/s" if guessed else ""
        links = self._links(work)
        basis += ", over a network supposed to carry 1 to 10 Gbit/s" if _supposed(links) else ""
        there = link_seconds(
            links, self.model, placement, n_tokens=1, depth=depth, flash_attn=estimate.resolved.flash_attn
        )  # fmt: skip
        return Speed(
            generation=_generation(everything, GUESSED if guessed else 1.0, there),
            prompt=self._prompt(estimate, placement, work, on_host),
            basis=basis,
        )

    def _links(self, names: Iterable[str]) -> dict[str, Link]:
        """The ways to those of these devices that are behind RPC servers."""
        found = {name: link_of(self.machine.devices[self._names.index(name)]) for name in names if name in self._names}
        return {name: link for name, link in found.items() if link is not None}

    def _prompt(self, estimate: Estimate, placement: Placement, work: Mapping[str, Work], on_host: Work | None) -> Range | None:
        """Everything is computed on the GPUs, what lies on the CPU after it was copied there (ggml's op offload).

        Nothing is copied to an RPC server (its offload_op is empty), and parts on servers wait for one another.
        """
        if not work or not estimate.settings.op_offload:
            return None
        n_ubatch = min(estimate.resolved.n_ubatch, _TEST_PROMPT)
        links = self._links(work)
        if on_host is not None and len(links) == len(work):
            return None
        on_gpus = list(work.values())
        spread = max(each.kind.prompt_spread for each in on_gpus)
        copied = 0.0
        if on_host is not None:
            name, first = next((name, each) for name, each in work.items() if name not in links)
            on_gpus.append(on_host._replace(kind=first.kind, backend=first.backend, throughput=first.throughput))
            copying = copy_seconds(self.machine.devices[self._names.index(name)], self._host[0])
            copied = self._copied_bytes(estimate) * copying / n_ubatch
            spread *= PARTLY if copied else 1.0
        several = len(work) > 1 and on_host is None and not estimate.settings.moves and not links
        seconds = prompt_seconds(on_gpus, n_ubatch, PIPELINE if several else 0.0)
        if seconds is None:
            return None
        slow, fast = link_seconds(
            links, self.model, placement, n_tokens=n_ubatch, depth=_TEST_PROMPT, flash_attn=estimate.resolved.flash_attn
        )
        computing = seconds + copied
        return Range(1 / (computing * spread + slow / n_ubatch), 1 / (computing / spread + fast / n_ubatch))

    def _copied_bytes(self, estimate: Estimate) -> int:
        """Weights on the CPU, experts in whole: a micro-batch uses nearly all of them.

        Not the last layer's feed-forward: of a prompt it sees the tokens alone whose outputs are wanted (inp_out_ids).
        """
        places = self._places(estimate, place(self.model, self.machine, estimate.settings))
        stays = (*INPUTS, f"blk.{self.model.n_layer - 1}.ffn_") if self.model.causal and self.model.has_output else INPUTS
        return sum(n for name, n in self._sizes(places) if not name.startswith(stays))

    def _sizes(self, places: Mapping[str, str]) -> list[tuple[str, int]]:
        return [(name, self.model.tensors[name].n_bytes) for name, buffer in places.items() if buffer not in self._names]

    def _places(self, estimate: Estimate, placement: Placement) -> Mapping[str, str]:
        return self._estimator.placed(placement, estimate.settings).tensors()

    def _work(self, estimate: Estimate, placement: Placement, depth: int) -> dict[str, Work] | None:
        """What each device does for a token, in the order of the layers; None where one of them is a stranger."""
        weights, parameters = self._weights(estimate, placement)
        caches = self._caches(estimate, placement, depth)
        layers = Counter(placement.layer_devices[:-1])
        experts = Counter(placement.layer_devices[il] for il in self._moe_layers)
        found: dict[str, Work] = {}
        for name in (*placement.names, HOST):
            if not weights.get(name) and not caches.get(name):
                continue
            kind, family, bandwidth, throughput = self._hardware(name)
            if kind is None or bandwidth is None:
                return None
            found[name] = Work(
                kind, BACKENDS[family], bandwidth, throughput, weights[name], caches[name], layers[name],
                experts[name], parameters[name], self._attention(placement, name, depth),
            )  # fmt: skip
        return found

    def _hardware(self, name: str) -> tuple[Kind | None, str, int | None, float | None]:
        """Kind, row of kernels, bandwidth and throughput of a device."""
        if name == HOST:
            return KINDS["cpu"], "cpu", self._host[0], None
        found = self._devices.get(name)
        if found is None:
            found = self._devices[name] = hardware_of(self.machine.devices[self._names.index(name)])
        return found.row, found.family, found.bandwidth, found.throughput

    def _weights(self, estimate: Estimate, placement: Placement) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]]]:
        """Bytes read, and weights used, for one token by device and type group."""
        placed = self._estimator.placed(placement, estimate.settings)
        n_bytes: dict[str, Counter[str]] = defaultdict(Counter)
        n_weights: dict[str, Counter[str]] = defaultdict(Counter)
        places = [(name, buffer) for name, buffer in placed.tensors().items() if not name.startswith(INPUTS)]
        if self.model.tied_output and placed.output_buffer is not None:
            places.append(("token_embd.weight", placed.output_buffer))
        for name, buffer in places:
            device = buffer if buffer in self._names else HOST
            group, read, used = self._reads[name]
            n_bytes[device][group] += read
            n_weights[device][group] += used
        return n_bytes, n_weights

    @cached_property
    def _reads(self) -> Mapping[str, tuple[str, int, int]]:
        """Of each tensor its type group, and how many of its bytes, and weights, a token needs."""
        share = share_of_experts(self.model)
        found: dict[str, tuple[str, int, int]] = {}
        for name, tensor in self.model.tensors.items():
            used = share if EXPERTS.match(name) else 1.0
            n_weights = round(tensor.n_elements * used) if len(tensor.shape) > 1 else 0
            found[name] = TYPE_GROUPS.get(tensor.type, "iq"), round(tensor.n_bytes * used), n_weights
        return found

    @cached_property
    def _moe_layers(self) -> set[int]:
        return {int(found[1]) for found in map(EXPERTS.match, self.model.tensors) if found} & set(range(self.model.n_layer))

    def _caches(self, estimate: Estimate, placement: Placement, depth: int) -> Counter[str]:
        """Bytes of cache read for a token at this depth, by device."""
        settings = estimate.settings
        one = replace(estimate.resolved, n_seq_max=1, n_stream=1)
        size = cells(self.model, one, kv_unified=settings.kv_unified, swa_full=settings.swa_full)
        found: Counter[str] = Counter()
        for tensor in cache_tensors(self.model, one, size):
            n_cells = tensor.shape[1]
            filled = min(1.0, depth / n_cells) if n_cells in (size.base, size.swa) else 1.0
            found[placement.cache_devices[tensor.il]] += round(alloc_size(tensor.type, tensor.shape) * filled)
        return found

    def _attention(self, placement: Placement, name: str, depth: int) -> float:
        layers = [layer for layer in self.model.layers if placement.layer_devices[layer.il] == name and layer.has_kv]
        return sum(4.0 * layer.n_head * layer.n_embd_head_k * depth for layer in layers)


def _supposed(links: Mapping[str, Link]) -> bool:
    return any(link.bandwidth == SUPPOSED for link in links.values())


def _generation(work: Sequence[Work], guessed: float, network: tuple[float, float]) -> Range:
    """Each device's share of the time may be off by its kind's spread, the host's by `guessed` more."""
    hops = (len(work) - 1) * HOP
    spreads = [each.kind.spread * (guessed if each.kind is KINDS["cpu"] else 1.0) for each in work]
    seconds = [generation_seconds([each], HOP) for each in work]
    slow = sum(t * s for t, s in zip(seconds, spreads, strict=True)) + hops
    fast = sum(t / s for t, s in zip(seconds, spreads, strict=True)) + hops
    return Range(1 / (slow + network[0]), 1 / (fast + network[1]))
