"""The lessons in their order, what one hands to the next, and pictures of how far they got."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

import camera_utils
from demo.teaching.distil import Distil, DistilSettings
from demo.teaching.fit import Fit, FitSettings
from demo.teaching.people import People
from demo.teaching.pictures import Pictures, PicturesSettings
from dnnlib.util import construct_class_by_name
from inference import synthesis
from training.checkpoint import save_snapshot
from training.config import TrainingConfig
from training.images import save_image, tile, to_uint8

Settings = TypeVar("Settings", FitSettings, DistilSettings, PicturesSettings)

SNAPSHOT = "taught.pkl"
SHEET_PEOPLE = 6
SHEET_RAW = 64  # pixels of the raw pictures of sheets
SHEET_YAWS = (0.0, 0.7, 1.57, 3.14)  # radians
SHEET_TRUNCATION = 0.8


class Course:
    """A generator, the people it is taught, and the lesson it is at, which is None in the end."""

    def __init__(self, config: TrainingConfig, people: People, effort: float, device: torch.device):
        self.config = config
        self.people = people
        self.effort = effort
        self.device = device
        self.before = 0  # images of the lessons that are over
        torch.manual_seed(config.seed)
        self.G = construct_class_by_name(**config.generator_kwargs(people.resolution)).train().to(device)
        self.lesson = Fit(self.G, people, self._settings(FitSettings()), config.seed, device)

    def _settings(self, usual: Settings) -> Settings:
        """`usual` for a lesson that takes `effort`."""
        return replace(usual, passes=self.effort * usual.passes)

    def _distil(self) -> Distil:
        settings = self._settings(DistilSettings())
        return Distil(self.G, len(self.people), self.people.views, settings, self.config.seed, self.device)

    def _pictures(self, targets: torch.nn.Module) -> Pictures:
        return Pictures(self.G, targets, self.people, self._settings(PicturesSettings()), self.config.seed, self.device)

    @property
    def nimg(self) -> int:
        """Images of all lessons so far."""
        return self.before + (self.lesson.nimg if self.lesson else 0)

    def advance(self) -> None:
        """Begin the next lesson with what the present one has taught; after the last there is none."""
        before = self.lesson
        self.before += before.nimg
        if isinstance(before, Fit):
            self.lesson = self._distil()
            self.lesson.begin(before)
        elif isinstance(before, Distil):
            self.lesson = self._pictures(before.targets)
        else:
            self.lesson = None

    def state_dict(self) -> dict[str, Any]:
        """All that the course needs to go on."""
        name, state = ("", dict(G=self.G.state_dict())) if self.lesson is None else (self.lesson.name, self.lesson.state_dict())
        return dict(lesson=name, before=self.before, of_lesson=state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.before = state["before"]
        if state["lesson"] != Fit.name:
            self.lesson = self._distil()
        if state["lesson"] == Pictures.name:
            self.lesson = self._pictures(self.lesson.targets)
        if state["lesson"]:
            self.lesson.load_state_dict(state["of_lesson"])
        else:
            self.lesson = None
            self.G.load_state_dict(state["of_lesson"]["G"])

    def save_snapshot(self, folder: Path) -> None:
        """Write the networks, with a discriminator that has learned nothing yet, for train.py --resume and all commands."""
        D = construct_class_by_name(**self.config.discriminator_kwargs(self.people.resolution))
        self.G.neural_rendering_resolution = SHEET_RAW
        save_snapshot(folder / SNAPSHOT, dict(G=self.G, D=D, G_ema=self.G), {})

    @torch.no_grad()
    def save_pictures(self, folder: Path) -> None:
        """A sheet: some people, a row each: a rendered view, the same as it is learned, and an orbit; then random heads."""
        rows = []
        for person in range(min(SHEET_PEOPLE, len(self.people))):
            label = self.people.labels[person, :1].to(self.device)
            truth = self.people.images[person, :1].permute(0, 2, 3, 1).numpy()
            rows += [truth, *self._views(self.lesson.face(person), [label])]
        if not isinstance(self.lesson, Fit):
            front = camera_utils.orbit_label(0.0, 0.0).to(self.device)
            ws = synthesis.seeds_to_ws(self.G, range(SHEET_PEOPLE), front, SHEET_TRUNCATION)
            for one in ws.split(1):
                rows += [np.zeros_like(rows[0])] * 2 + self._views(self.G.prepare(one, noise_mode="const"), [])
        name = f"{self.lesson.name}-{self.lesson.nimg:07d}.png"
        save_image(tile(np.concatenate(rows), 2 + len(SHEET_YAWS)), folder / name)

    def _views(self, face: Any, labels: list[torch.Tensor]) -> list[np.ndarray]:
        """Pictures [1, H, W, 3] from the cameras `labels` [1, 25] and then round the head."""
        cameras = labels + [camera_utils.orbit_label(yaw, 0.0).to(self.device) for yaw in SHEET_YAWS]
        return [to_uint8(self.G.render(face, camera, SHEET_RAW, noise_mode="const")["image"]) for camera in cameras]
