"""Renders one person from all sides: from a seed and cameras to finished pictures, masks and ground truth."""

import importlib.util
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demo.heads.geometry import Mesh
from demo.heads.views import ViewPlan
from dnnlib import UserError

if TYPE_CHECKING:
    from demo.heads.scene import Scene

PACKAGES = ("anny", "mitsuba", "mitsuba_oidn")
# Streams of the person's random numbers, besides those of person.py (smaller) and scene.py (larger).
BACKGROUND_STREAM = 101
RENDER_STREAM = 102


@dataclass(frozen=True)
class Sitting:
    """What to render of one person."""

    person_seed: int
    views: tuple[ViewPlan, ...]
    resolution: int  # side in pixels
    spp: int  # light paths per pixel
    style: str | None  # hair style; None means that the seed decides


@dataclass(frozen=True)
class Picture:
    """One view in the form in which it is written to files."""

    image: np.ndarray  # uint8 [r, r, 3]
    mask: np.ndarray  # uint8 [r, r], 255 is head
    depth: np.ndarray  # float [r, r], world units along the camera's z axis, 0 where nothing is


@dataclass(frozen=True)
class Portrait:
    """A person: the traits in JSON form, the pictures one after the other, and the surface in world units."""

    traits: dict[str, Any]
    pictures: Iterator[Picture]
    surface: Mesh


def prepare() -> None:
    """Create the cached data that all people are made from, so that the processes find it ready.

    Raises UserError if the packages of the extra `heads` are not installed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'rendering heads needs {", ".join(missing)}: pip install -e ".[heads]"')
    # Imported only where it is needed, because the renderer is large and optional.
    from demo.heads import template

    template.load_template()


def portray(sitting: Sitting) -> Portrait:
    """The person of `sitting.person_seed`, rendered by mitsuba on one thread."""
    from demo.heads import person, scene, template, truth

    scene.select_variant()
    import drjit  # looks for LLVM when it is imported, so the variant must be chosen first

    drjit.set_thread_count(1)  # processes share the cores
    sitter = person.sample_person(sitting.person_seed, sitting.style)
    stage = scene.build_scene(template.load_template(), sitter)
    return Portrait(asdict(sitter), _pictures(sitting, stage), truth.surface(stage))


def _pictures(sitting: Sitting, stage: "Scene") -> Iterator[Picture]:
    from demo.heads import light, picture

    for number, plan in enumerate(sitting.views):
        noise_seed = int(np.random.SeedSequence([sitting.person_seed, RENDER_STREAM, number]).generate_state(1)[0])
        view = picture.render_view(stage, plan.cam2world, sitting.resolution, sitting.spp, noise_seed)
        rng = np.random.default_rng([sitting.person_seed, BACKGROUND_STREAM, number])
        image = picture.compose(view, light.sample_background(rng, sitting.resolution))
        yield Picture(image, np.round(view.alpha * 255).astype(np.uint8), view.depth)
