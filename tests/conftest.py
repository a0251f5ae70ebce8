"""For all tests: what is true is not a question of how busy the machine is, nor of luck.

The same examples are tried each time, so a change is what makes a test fail; FITPLUG_SEARCH=1 looks for new ones.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not os.environ.get("FITPLUG_SEARCH"),
)
settings.load_profile("patient")
