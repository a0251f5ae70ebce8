"""Speed coefficients by kind of hardware and by backend: written by fixtures/speed/calibrate.py, not by hand."""

from fitplug.planner.speed_model import Backend, Kind

HOP = 0.000251
"""Seconds for a step from one GPU to the next."""
PIPELINE = 0.295
"""Power of the number of GPUs that long prompts gain."""

KINDS = {
    "cpu": Kind(0.603, 4.39e-05, None, 1.75, 2.50, 21),
    "cuda ada": Kind(0.929, 6.4e-05, 0.554, 1.20, 1.43, 76),
    "cuda ampere": Kind(0.88, 7.2e-05, 0.558, 1.26, 1.58, 79),
    "cuda blackwell": Kind(0.737, 3.3e-05, 0.649, 1.31, 1.36, 26),
    "cuda hbm": Kind(0.578, 6.43e-05, 0.276, 1.63, 1.97, 35),
    "cuda pascal": Kind(0.788, 0.000205, 1.16, 1.69, 1.50, 5),
    "cuda turing": Kind(0.778, 9.78e-05, 0.307, 1.49, 1.46, 28),
    "metal": Kind(0.788, 0.000162, 0.633, 1.23, 1.20, 73),
    "rocm apu": Kind(0.719, 0.000153, None, 1.55, 2.50, 19),
    "rocm rdna2": Kind(0.739, 0.000106, 0.844, 1.59, 1.46, 8),
    "rocm rdna3": Kind(0.76, 0.00016, 0.296, 1.63, 1.97, 18),
    "rocm rdna4": Kind(0.763, 8.51e-05, 0.719, 1.46, 2.21, 15),
    "vulkan amd": Kind(0.872, 7.5e-05, 0.298, 1.18, 1.44, 10),
    "vulkan apple": Kind(0.723, 5.64e-05, 0.447, 1.69, 2.50, 4),
    "vulkan apu": Kind(0.799, 5.5e-05, 0.185, 1.20, 2.50, 20),
    "vulkan intel": Kind(0.705, 6.09e-05, 0.297, 1.58, 1.50, 5),
    "vulkan nvidia": Kind(0.802, 3.34e-05, 0.415, 1.50, 1.50, 2),
}

BACKENDS = {
    "cpu": Backend(
        per_moe_layer=2.19e-05,
        cache=1.22,
        reading={"q8_0": 0.929, "q4_0": 0.974, "iq": 1.07},
        experts=0.5,
        unpacking={},
        attention=1,
        per_layer_prompt=0.0003,
    ),
    "cuda": Backend(
        per_moe_layer=3.48e-05,
        cache=1.26,
        reading={"f16": 0.922, "q8_0": 0.946, "q4_0": 0.891, "iq": 1.37},
        experts=0.414,
        unpacking={"f16": 1.34, "q8_0": 1.14, "q4_0": 1.19, "iq": 0.915},
        attention=0.51,
        per_layer_prompt=0.000763,
    ),
    "cuda hbm": Backend(
        per_moe_layer=1.04e-05,
        cache=1.41,
        reading={"f16": 0.9, "q8_0": 0.808, "q4_0": 0.903, "iq": 1.37},
        experts=0.414,
        unpacking={"f16": 1.34, "q8_0": 1.14, "q4_0": 1.19, "iq": 0.915},
        attention=0.51,
        per_layer_prompt=0.000763,
    ),
    "metal": Backend(
        per_moe_layer=6.13e-05,
        cache=1.18,
        reading={"f16": 0.891, "q8_0": 0.899, "q4_0": 0.923},
        experts=0.627,
        unpacking={"f16": 1.16, "q8_0": 1.07, "q4_0": 1.06},
        attention=1.62,
        per_layer_prompt=0.00114,
    ),
    "rocm": Backend(
        per_moe_layer=5.5e-05,
        cache=1.24,
        reading={"f16": 0.805, "q8_0": 0.806, "q4_0": 0.786, "iq": 1.37},
        experts=0.306,
        unpacking={"f16": 1.08, "q8_0": 1.06, "q4_0": 1.11, "iq": 1.03},
        attention=1.32,
        per_layer_prompt=0.000599,
    ),
    "vulkan": Backend(
        per_moe_layer=4.85e-05,
        cache=1.2,
        reading={"f16": 0.999, "q8_0": 0.929, "q4_0": 1.07, "iq": 0.995},
        experts=0.45,
        unpacking={"f16": 1.06, "q8_0": 0.952, "q4_0": 1.2, "iq": 1},
        attention=1.04,
        per_layer_prompt=0.00041,
    ),
}
