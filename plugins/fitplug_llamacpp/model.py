"""How llama.cpp's programs are told which model: a file, a URL, or a repository that they download from themselves."""

from collections.abc import Iterator
from typing import NamedTuple

from fitplug.extension import ExportRequest
from fitplug.planner.records import Plan
from fitplug.settings import Settings

_ENDPOINTS = {"hf": None, "modelscope": "https://www.modelscope.cn/"}
"""MODEL_ENDPOINT for each hub (common/common.cpp, common_get_model_endpoint)."""


class ModelWords(NamedTuple):
    """Arguments, the environment that they need, and what should be known."""

    words: tuple[str, ...]
    env: dict[str, str]
    notes: tuple[str, ...] = ()


def model_words(plan: Plan, request: ExportRequest) -> ModelWords:
    """The servers whose devices the plan uses, then the model."""
    servers = dict.fromkeys(str(device.extra.get("endpoint")) for device in plan.machine.devices if device.backend == "rpc")
    model = _model(plan, request)
    model = model._replace(notes=(*model.notes, *_to_fetch(plan.estimate.settings)))
    return model._replace(words=("--rpc", ",".join(servers), *model.words)) if servers else model


def _to_fetch(settings: Settings) -> Iterator[str]:
    """A projector has a flag for its URL (-mmu), drafts and adapters have none (common/arg.cpp)."""
    for name in settings.remote:
        if name != settings.mmproj:
            yield f"llama.cpp opens drafts and adapters on this disk only: download {name} and name that file."


def _model(plan: Plan, request: ExportRequest) -> ModelWords:
    """`-m FILE`, `-mu URL`, or `-hf OWNER/NAME -hff FILE`: exactly the file that was planned for, and no projector unasked."""
    scheme, _, rest = request.model_reference.partition(":")
    notes = ("llama.cpp runs GGUF files: convert the model first, and name that file.",)
    if plan.model.header.format != "gguf":
        return ModelWords(("-m", request.model_path), {}, notes)
    if scheme in ("http", "https"):
        return ModelWords(("-mu", request.model_reference), {})
    if scheme in _ENDPOINTS and request.model_path in (request.model_reference, ""):
        repository, at, _ = rest.partition(":")[0].partition("@")
        words = ["-hf", repository, "-hff", plan.model.header.shards[0]]
        words += [] if plan.estimate.settings.mmproj else ["--no-mmproj"]
        endpoint = _ENDPOINTS[scheme]
        late = ("llama.cpp downloads the default revision, not the one that was planned for.",) if at else ()
        return ModelWords(tuple(words), {"MODEL_ENDPOINT": endpoint} if endpoint else {}, late)
    return ModelWords(("-m", request.model_path), {})
