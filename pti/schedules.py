"""Schedules of a projection: pure functions of the share `t` of its steps that are done."""

import math

from pti.settings import ProjectionSettings, TuningSettings

POSE_RATE, POSE_RAMP_DOWN = 0.1, 0.5  # shares of the latent's learning rate, and of the cameras' steps


def learning_rate(t: float, settings: ProjectionSettings) -> float:
    """Learning rate of the latent: a linear ramp-up at the start and a cosine decay to zero at the end."""
    return settings.learning_rate * fall(t, settings.ramp_down) * min(1.0, t / settings.ramp_up)


def shares_w(t: float, settings: ProjectionSettings) -> bool:
    """Whether all layers still share one w."""
    return t < settings.w_until


def pose_rate(t: float, settings: ProjectionSettings) -> float:
    """Learning rate of the cameras: a share of the latent's, decaying to 0 by the time that layers stop sharing one w."""
    if not shares_w(t, settings):
        return 0.0
    return POSE_RATE * learning_rate(t, settings) * fall(t / settings.w_until, POSE_RAMP_DOWN)


def fall(t: float, part: float) -> float:
    """A factor of 1 that decays to 0 as a cosine over the last `part`.  Always 1 if `part` is 0."""
    return 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / part)) if part else 1.0


def w_noise(t: float, deviation: float, settings: ProjectionSettings) -> float:
    """Standard deviation of the noise on w, decaying with the square of the remaining time; `deviation` is that of w."""
    return deviation * settings.w_noise * max(0.0, 1 - t / settings.w_noise_until) ** 2


def step_after(step: int, loss: float, plateau: "Plateau", settings: ProjectionSettings | TuningSettings) -> int:
    """The next step.  If the `loss` of `step` shows no more progress, this is the first step of the learning rate's decay."""
    falling_from = int(settings.steps * (1 - settings.ramp_down))
    return falling_from if step + 1 < falling_from and plateau.reached(loss) else step + 1


class Plateau:
    """Detects that the running mean of a loss has fallen by less than 1% in `patience` steps.  Never does so for 0."""

    _KEPT = 0.9  # share of the running mean that is kept at each step
    _GAIN = 0.99

    def __init__(self, patience: int):
        self._patience = patience
        self._mean: float | None = None
        self._best = math.inf
        self._since = 0

    def reached(self, loss: float) -> bool:
        """Add the loss of one more step, and return whether a plateau is reached."""
        self._mean = loss if self._mean is None else self._KEPT * self._mean + (1 - self._KEPT) * loss
        self._since += 1
        if self._mean < self._GAIN * self._best:
            self._best, self._since = self._mean, 0
        return 0 < self._patience <= self._since
