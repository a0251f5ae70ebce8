"""Models of every architecture whose graph is drawn, most of them several times as deep as their fixture."""

import recurrent_support as recurrent
import truth_support as truth
from fitplug.model.describe import describe

LATENT = truth.Answers("latent")
NOT_DEEPENED = ("t5", "wavtokenizer", "pockettts", "hrm_text")
"""Which number their blocks in ways of their own."""
DRAFTS = ("eagle3", "dflash", "dspark")
"""Which run beside a target only."""


def _latent(name):
    times = 1 if name.startswith(NOT_DEEPENED) else 3
    return describe(truth.header_of(recurrent.deepened(LATENT.models[name], times)))


MODELS = {
    **{f"recurrent/{name}": lambda name=name: recurrent.model(name, 3) for name in recurrent.RECURRENT.models},
    **{f"latent/{name}": lambda name=name: _latent(name) for name in LATENT.models if not name.startswith(DRAFTS)},
    **{f"{name} {ftype}": lambda name=name, ftype=ftype: truth.model(name, ftype)
       for name, ftype in dict.fromkeys((row["model"], row["ftype"]) for row in truth.rows("memory"))},
}  # fmt: skip
"""By name: what makes it."""
