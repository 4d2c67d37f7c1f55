"""Settings of an inversion.  The defaults are the published numbers, except where a comment says otherwise."""

from dataclasses import dataclass

from dnnlib import UserError

SPACES = ("w", "w+")
PRECISIONS = ("fp32", "tf32", "mixed")

PUBLISHED_RATE, SMALL_RATE = 3e-4, 4e-3  # of the tuning; smaller networks need larger steps
SMALL = 256  # pixels


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms of both stages; see `pti.losses`."""

    perceptual: float = 1.0
    mse: float = 0.1
    w_distance: float = 1.0  # in the projection only
    noise: float = 1e5  # in the projection, if the noise is optimised
    silhouette: float = 1.0  # with masks only
    background: float = 0.1  # weight of a background pixel relative to a pixel of the head; with masks only


@dataclass(frozen=True)
class ProjectionSettings:
    """The search for a latent (Karras 2020, appendix D)."""

    space: str = "w+"  # 'w+': a separate row for each layer; 'w': one for all
    w_until: float = 0.4  # share of the steps in which all layers share one w, even in w+; published: 0
    steps: int = 500
    learning_rate: float = 0.1
    ramp_down: float = 0.25  # share of the steps
    ramp_up: float = 0.05  # share of the steps
    w_noise: float = 0.05  # at the start, in standard deviations of w
    w_noise_until: float = 0.75  # share of the steps
    w_samples: int = 10_000
    mask: bool = False  # concentrate the loss on the head; the background gets a latent of its own
    refine_pose: bool = True  # optimise the cameras during `w_until`; published: no
    optimize_noise: bool = False
    early_stop: int = 0  # steps without progress after which a stage skips to its learning-rate decay; 0: never
    seed: int = 666

    def __post_init__(self) -> None:
        _choice("--space", self.space, SPACES)
        _at_least("--num-steps", self.steps, 1)
        if self.refine_pose and not self.w_until > 0:
            raise UserError("--refine-pose true: cameras are optimised while all layers share one w, so w_until must be over 0")


@dataclass(frozen=True)
class TuningSettings:
    """The tuning of the generator around a fixed latent (Roich 2021)."""

    steps: int = 500
    learning_rate: float | None = None  # None: `PUBLISHED_RATE`, or `SMALL_RATE` for networks up to `SMALL` pixels
    ramp_down: float = 0.25  # share of the steps; published: 0
    mse: float = 1.0  # replaces `LossWeights.mse`, as in Roich 2021; published: 0.1
    mask: bool = False
    locality: float = 0.0  # weight of keeping what other latents show; 0: off
    locality_radius: float = 30.0  # distance in w between those latents and the pivot
    back_prior: float = 0.1  # weight of keeping what the pivot shows from unseen sides; 0: off
    anchors: int = 16  # pictures recorded for each of the two
    early_stop: int = 0
    seed: int = 666

    def __post_init__(self) -> None:
        _at_least("--num-steps-pti", self.steps, 0)
        _at_least("--locality", self.locality, 0)
        _at_least("--back-prior", self.back_prior, 0)

    def rate(self, resolution: int) -> float:
        """The initial learning rate for a network whose pictures have `resolution` pixels."""
        usual = SMALL_RATE if resolution <= SMALL else PUBLISHED_RATE
        return usual if self.learning_rate is None else self.learning_rate


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} {value}: choose from {', '.join(choices)}")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise UserError(f"{name} {value}: must be at least {least}")
