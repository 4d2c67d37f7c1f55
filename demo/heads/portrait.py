"""One person from all sides: from a seed and cameras to finished pictures, masks and the truth about them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from demo.heads import geometry
from demo.heads.views import ViewPlan

BACKGROUND_STREAM = 101  # of the person's random numbers; those of person.py are smaller
RENDER_STREAM = 102


@dataclass(frozen=True)
class Sitting:
    """What is to be made of one person."""

    person_seed: int
    views: tuple[ViewPlan, ...]
    resolution: int  # pixels of a side
    spp: int  # light paths per pixel
    style: str | None  # of the hair; None leaves it to the seed


@dataclass(frozen=True)
class Picture:
    """One view as it is written to files."""

    image: np.ndarray  # uint8 [r, r, 3]
    mask: np.ndarray  # uint8 [r, r], 255 is head
    depth: np.ndarray  # float [r, r], world units along the view, 0 where nothing is


@dataclass(frozen=True)
class Portrait:
    """A person: the traits as JSON takes them, the pictures one after the other, and the surface in world units."""

    traits: dict[str, Any]
    pictures: Iterator[Picture]
    surface: geometry.Mesh


def prepare() -> None:
    """Load what all people are made from, once, so that processes find it ready.

    UserError if the packages of the extra `heads` are not installed.
    """
    from demo.heads import scene, template

    scene.select_variant()
    template.load_template()


def portray(sitting: Sitting) -> Portrait:
    """The person of `sitting.person_seed`, drawn and rendered by mitsuba; call `prepare` before the first one."""
    from demo.heads import person, scene, template

    scene.select_variant()
    sitter = person.sample_person(sitting.person_seed, sitting.style)
    stage = scene.build_scene(template.load_template(), sitter)
    return Portrait(asdict(sitter), _pictures(sitting, stage), None)


def _pictures(sitting: Sitting, stage: Any) -> Iterator[Picture]:
    from demo.heads import light, picture

    for number, plan in enumerate(sitting.views):
        noise_seed = int(np.random.SeedSequence([sitting.person_seed, RENDER_STREAM, number]).generate_state(1)[0])
        view = picture.render_view(stage, plan.cam2world, sitting.resolution, sitting.spp, noise_seed)
        rng = np.random.default_rng([sitting.person_seed, BACKGROUND_STREAM, number])
        image = picture.compose(view, light.sample_background(rng, sitting.resolution))
        mask = np.round(np.clip(view.alpha, 0, 1) * 255).astype(np.uint8)
        yield Picture(image, mask, np.where(np.isfinite(view.depth), view.depth, 0.0))
