"""The traits of a person that a portrait needs, all drawn from one seed."""

from dataclasses import dataclass

import numpy as np

from .clothes import ClothesTraits, sample_clothes
from .eyes import EyeTraits, sample_eyes
from .facial_hair import FacialHairTraits, sample_facial_hair
from .hair import HairTraits, sample_hair
from .light import LightTraits, sample_light
from .shape import Expression, Phenotype, sample_expression, sample_local_changes, sample_phenotype
from .skin import SkinTraits, sample_skin

# Each part has its own random numbers, so that changing how one is drawn does not affect the others.
PHENOTYPE_STREAM = 0
LOCAL_CHANGES_STREAM = 1
EXPRESSION_STREAM = 2
SKIN_STREAM = 3
EYES_STREAM = 4
HAIR_STREAM = 5
FACIAL_HAIR_STREAM = 6
CLOTHES_STREAM = 7
LIGHT_STREAM = 8


@dataclass(frozen=True)
class Person:
    """The seed and the traits drawn from it; see the modules that draw them."""

    seed: int
    phenotype: Phenotype
    local_changes: dict[str, float]
    expression: Expression
    skin: SkinTraits
    eyes: EyeTraits
    hair: HairTraits
    facial_hair: FacialHairTraits
    clothes: ClothesTraits
    light: LightTraits


def sample_person(seed: int, style: str | None = None) -> Person:
    """Draw the person of a seed (0 or more); `style` names a hair style to use instead of the one drawn."""

    def stream(number: int) -> np.random.Generator:
        return np.random.default_rng([seed, number])

    phenotype = sample_phenotype(stream(PHENOTYPE_STREAM))
    return Person(
        seed=seed,
        phenotype=phenotype,
        local_changes=sample_local_changes(stream(LOCAL_CHANGES_STREAM), phenotype),
        expression=sample_expression(stream(EXPRESSION_STREAM)),
        skin=sample_skin(stream(SKIN_STREAM), phenotype),
        eyes=sample_eyes(stream(EYES_STREAM), phenotype),
        hair=sample_hair(stream(HAIR_STREAM), phenotype, style),
        facial_hair=sample_facial_hair(stream(FACIAL_HAIR_STREAM), phenotype),
        clothes=sample_clothes(stream(CLOTHES_STREAM), phenotype),
        light=sample_light(stream(LIGHT_STREAM)),
    )
