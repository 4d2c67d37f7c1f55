"""What changes over the steps of a projection: pure functions of the share `t` of its steps that are done."""

import math

from pti.settings import ProjectionSettings, TuningSettings

POSE_RATE, POSE_RAMP_DOWN = 0.1, 0.5  # shares of the latent's rate, and of the cameras' steps


def learning_rate(t: float, settings: ProjectionSettings) -> float:
    """A linear rise over the first part, a cosine fall to zero over the last."""
    return settings.learning_rate * fall(t, settings.ramp_down) * min(1.0, t / settings.ramp_up)


def shares_w(t: float, settings: ProjectionSettings) -> bool:
    """Whether all layers still share one w."""
    return t < settings.w_until


def pose_rate(t: float, settings: ProjectionSettings) -> float:
    """The cameras' learning rate: a share of the latent's while all layers share one w, which falls over its last part; then 0."""
    if not shares_w(t, settings):
        return 0.0
    return POSE_RATE * learning_rate(t, settings) * fall(t / settings.w_until, POSE_RAMP_DOWN)


def fall(t: float, part: float) -> float:
    """1, and over the last `part` a cosine down to 0; 1 all the time for a part of 0."""
    return 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / part)) if part else 1.0


def w_noise(t: float, deviation: float, settings: ProjectionSettings) -> float:
    """Deviation of the noise on w, falling with the square of the time left; `deviation` is that of w."""
    return deviation * settings.w_noise * max(0.0, 1 - t / settings.w_noise_until) ** 2


def step_after(step: int, loss: float, plateau: "Plateau", settings: ProjectionSettings | TuningSettings) -> int:
    """The next step; where the `loss` of `step` brings nothing any more, the first of those of the falling rate."""
    falling_from = int(settings.steps * (1 - settings.ramp_down))
    return falling_from if step + 1 < falling_from and plateau.reached(loss) else step + 1


class Plateau:
    """Says when a loss has not fallen for a while: its running mean by less than 1% in `patience` steps (0: never says so)."""

    _KEPT = 0.9  # of the running mean at each step
    _GAIN = 0.99

    def __init__(self, patience: int):
        self._patience = patience
        self._mean: float | None = None
        self._best = math.inf
        self._since = 0

    def reached(self, loss: float) -> bool:
        """Take in the loss of one more step."""
        self._mean = loss if self._mean is None else self._KEPT * self._mean + (1 - self._KEPT) * loss
        self._since += 1
        if self._mean < self._GAIN * self._best:
            self._best, self._since = self._mean, 0
        return 0 < self._patience <= self._since
