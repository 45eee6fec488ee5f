# SPDX-License-Identifier: Apache-2.0
"""A family of tiny kernels with every kind of behaviour, and a measurer whose clock is a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorwright.backends.base import Accept, Config, KernelFamily, Measurer, Operand, Reject, Trial, Workload
from tensorwright.errors import InternalError
from tensorwright.ir.dtype import DType
from tensorwright.ir.op import Array
from tensorwright.ops.elementwise import Neg


def negation(size: int) -> Workload:
    operand = Operand(DType.f32, (size,), (1,))
    return Workload(Neg(), (operand,), (operand,))


@dataclass(frozen=True, slots=True)
class FakeConfig(Config):
    """How the kernel behaves: its time in seconds, and what it does instead of negating ("", "wrong", "broken")."""

    seconds: float
    fault: str = ""


class FakeFamily(KernelFamily[FakeConfig, Any, FakeConfig]):
    """Offers the given configurations for negations of up to `most` elements; counts its emissions."""

    config = FakeConfig

    def __init__(
        self, name: str, configs: Sequence[FakeConfig], *, most: int = 1 << 20, version: int = 1, bound_s: float = 0.0
    ) -> None:
        self.name, self.configs, self.most, self.version, self.bound_s = name, configs, most, version, bound_s
        self.emitted: list[FakeConfig] = []

    def accepts(self, w: Workload, t: Any) -> Accept | Reject:
        size = w.outputs[0].shape[0]
        return Accept() if size <= self.most else Reject(f"{size} elements > {self.most}")

    def candidates(self, w: Workload, t: Any) -> Iterable[FakeConfig]:
        return iter(self.configs)

    def emit(self, w: Workload, c: FakeConfig, t: Any, symbol: str, constants: dict[int, Array]) -> FakeConfig:
        self.emitted.append(c)
        return c

    def bound(self, w: Workload, t: Any) -> float:
        return self.bound_s


@dataclass
class FakeMeasurer(Measurer[FakeConfig]):
    """Times are the configs' own times `slowness` of the moment; `log` lists every sample's config time, and
    `on_sample` may interfere."""

    log: list[float] = field(default_factory=list)
    on_sample: Callable[[], None] = lambda: None
    slowness: Callable[[int], float] = lambda samples: 1.0
    open_trials: int = 0
    checks: int = 0
    conditions = "fake"

    def load(self, w: Workload, kernel: FakeConfig, inputs: Sequence[Array | None]) -> Trial:
        if kernel.fault == "broken":
            raise InternalError("it does not compile")
        self.open_trials += 1
        return _FakeTrial(self, kernel, inputs[0])


@dataclass
class _FakeTrial(Trial):
    measurer: FakeMeasurer
    kernel: FakeConfig
    x: Array | None

    def outputs(self) -> list[Array]:
        self.measurer.checks += 1
        assert self.x is not None
        return [np.abs(self.x) if self.kernel.fault == "wrong" else -self.x]

    def sample(self) -> float:
        self.measurer.on_sample()
        self.measurer.log.append(self.kernel.seconds)
        return self.kernel.seconds * self.measurer.slowness(len(self.measurer.log))

    def close(self) -> None:
        self.measurer.open_trials -= 1


@dataclass
class FakeTarget:
    """A device of the fake measurer."""

    clock: FakeMeasurer = field(default_factory=FakeMeasurer)
    fingerprint: str = "fake"
    runs_here: bool = True

    def measurer(self) -> FakeMeasurer:
        return self.clock
