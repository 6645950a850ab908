"""The cases of a proof, as plain data: which model, which way of SGD, how many steps, and how far two results may be apart."""

from typing import Any

STEPS = 3
IMAGES_PER_RANK = 12
PLAIN: dict[str, Any] = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "lr_schedule": "constant", "warmup_fraction": 0.0}
STRONG: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}  # so that no trap stays unseen for a few steps
CASES = {  # name -> model and SGD, in the order in which they are told
    "traps": ("all used", PLAIN),
    "ResNet": ("group norm", PLAIN),
    "traps, momentum": ("all used", STRONG),
    "ResNet, momentum": ("group norm", STRONG),
    "traps, one unused": ("traps", STRONG),  # last, because a library may refuse it
}
FIRST, LAST = next(iter(CASES)), list(CASES)[-1]
# What the same arithmetic in another order explains, relative to single's weights with 0.01 as floor. Measured on the strategies of the
# lab: 8e-7 on the model with traps; 2e-11 on the ResNet, which is in float64, and 3e-5 there if the messages are in float32.
MOST = {"all used": 1e-5, "traps": 1e-5, "group norm": 1e-4}
