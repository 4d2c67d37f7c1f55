"""Schedules of training, as pure functions of `nimg`, the number of real images seen so far."""


def _progress(nimg: float, fade_kimg: float) -> float:
    """Progress of a fade over `fade_kimg` thousand images, from 0 to 1.  A fade of length 0 is always complete."""
    return min(nimg / (fade_kimg * 1000), 1.0) if fade_kimg > 0 else 1.0


def blur_sigma(nimg: float, init_sigma: float, fade_kimg: float) -> float:
    """Standard deviation in pixels of the discriminator's input blur (EG3D, supplement): linear from `init_sigma` to 0."""
    return init_sigma * (1 - _progress(nimg, fade_kimg))


def pose_swap_probability(nimg: float, final: float, fade_kimg: float) -> float:
    """Probability of conditioning a sample on another one's camera (EG3D, section 3.5): linear from 1 to `final`."""
    done = _progress(nimg, fade_kimg)
    return (1 - done) + done * final


def rendering_resolution(nimg: float, initial: int, final: int | None, fade_kimg: float) -> int:
    """Size of the raw picture in pixels: linear from `initial` to `final`, or constant if `final` is None."""
    if final is None:
        return initial
    done = _progress(nimg, fade_kimg)
    return int(round(initial * (1 - done) + final * done))


def density_noise(nimg: float, fade_kimg: float) -> float:
    """Standard deviation of the noise on densities: linear from 1 to 0."""
    return 1 - _progress(nimg, fade_kimg)


def ema_decay(nimg: float, batch: int, half_life_kimg: float, rampup: float | None) -> float:
    """Decay factor of the averaged weights for one batch, such that their half-life is `half_life_kimg` thousand images.

    Early in training the half-life is `rampup` times the number of images seen, so that initial weights do not linger.  None
    disables this.
    """
    half_life = half_life_kimg * 1000
    if rampup is not None:
        half_life = min(half_life, nimg * rampup)
    return 0.5 ** (batch / max(half_life, 1e-8))
