"""From a generator, a data set and the names of metrics to figures: what each metric looks at, and what it makes of it.

Every metric is rows of numbers, one for each picture or head, that any process can compute (`metrics.store`), and a figure
that the first process makes of them.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import camera_utils
from dnnlib import UserError
from metrics import heads, pictures, results, statistics
from metrics.consistency import Agreement
from metrics.detectors import INCEPTION, VGG16
from metrics.digests import digest_of_cameras, digest_of_generator, digest_of_pictures, digest_of_values
from metrics.requests import DISTANCES, EFFICIENTNET, NEIGHBOURS, Request, parse_all
from metrics.store import Rows, Store, default_folder
from metrics.tools import Tools, face_of
from metrics.views import Row, in_view, require_view
from photo.photograph import Photo
from torch_utils import distributed
from training.dataset import HeadPictures
from training.triplane import Face, TriPlaneGenerator

PICTURES_CHUNK, HEADS_CHUNK = 128, 4  # rows that one process computes before the next is asked, and that a file keeps
PUBLISHED = {"fid": INCEPTION, "kid": INCEPTION, "is": INCEPTION, "pr": VGG16}  # whose features published figures are of
ID_YAWS = (-30.0, -15.0, 0.0, 15.0, 30.0)  # degrees, of the views whose faces are compared with the middle one's
LEAST_REAL = NEIGHBOURS + 1  # pictures of a view
Figures = dict[str, float | None]  # None: nothing could be seen


@dataclass(frozen=True)
class Settings:
    """What to measure, and how."""

    metrics: tuple[str, ...]
    views: tuple[str, ...] = ("all",)
    num_images: int | None = None
    detector: str = EFFICIENTNET
    embedder: str | None = None
    landmarker: str | None = None
    segmenter: str | None = None
    batch: int = 4  # pictures that are made at a time
    truncation: float = 1.0
    background: str = "own"  # of pictures.BACKGROUNDS
    seed: int = 0
    cache: str | None = None
    trust_pickle: bool = False  # for the detector

    @cached_property
    def requests(self) -> list[Request]:
        """The metrics; UserError as of `parse_all`."""
        return parse_all(self.metrics, self.num_images)

    def check(self, dataset: HeadPictures) -> list[str]:
        """Lines that say what will be measured, and with what; UserError if something of it cannot be."""
        names, by_view = ", ".join(self.metrics), any(request.by_view for request in self.requests)
        if not by_view and self.views != ("all",):
            raise UserError(f"{names} looks at heads from all round: no view can be chosen")
        for view in self.views if by_view else ():
            require_view(dataset.item_labels(), view, LEAST_REAL)
        pictures.RealPictures(dataset).require(self.background)
        with self.tools("cpu") as tools:
            told = [f"{names}, of {', '.join(self.views)}" if by_view else names]
            if "detector" in vars(tools):
                known = all(tools.detector.name == PUBLISHED[r.kind] for r in self.requests if r.kind in DISTANCES)
                worth = "as published figures are" if known else "figures compare with others of it, not with published ones"
                told.append(f"features of {tools.detector.name}: {worth}")
            return told

    def tools(self, device: torch.device | str) -> Tools:
        """What the metrics need; UserError if something cannot be had."""
        names = ("detector", "embedder", "landmarker", "segmenter", "trust_pickle")
        return Tools(self.requests, device, **{name: getattr(self, name) for name in names})


class Measurer:
    """Measures generators against one data set, as one of the processes that were launched together."""

    def __init__(self, settings: Settings, dataset: HeadPictures, device: torch.device):
        self.settings = settings
        self.dataset = dataset
        self.device = device
        self.real = pictures.RealPictures(dataset)
        self.real.require(settings.background)
        self._folder = Path(settings.cache) if settings.cache else default_folder()

    def measure(
        self,
        G: TriPlaneGenerator,
        about: dict[str, Any],
        known: Sequence[results.Line] = (),
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[results.Line]:
        """Yields a line for each metric and view as soon as it is measured, in the first process; nothing in others.

        `about` is what a line tells besides, such as the name of the network; what is among the lines `known` is left out.
        All processes must come here together.  Once ``stop()`` is true in any of them, `store.Stopped` is raised in all.
        """
        with self.settings.tools(self.device) as tools:
            session = _Session(self, G, tools, stop)
            for request in self.settings.requests:
                for view in self.settings.views if request.by_view else ("all",):
                    fingerprint = session.fingerprint(request, view) if distributed.get_rank() == 0 else None
                    skip = fingerprint is not None and results.is_among(request.name, view, fingerprint, known)
                    if distributed.broadcast_object(skip):
                        continue
                    start = time.time()
                    figures = session.figures(request, view)
                    if figures is not None:
                        yield dict(
                            metric=request.name,
                            view=view,
                            figures=figures,
                            **about,
                            device=results.device_name(self.device),
                            seconds=round(time.time() - start, 1),
                            timestamp=time.time(),
                            fingerprint=fingerprint,
                        )
            session.close()

    @cached_property
    def data_digest(self) -> str:
        """Of the pictures."""
        return digest_of_pictures(self.dataset.images)

    @cached_property
    def masks_digest(self) -> str | None:
        """Of their masks; None where there are none."""
        return digest_of_pictures(self.dataset.masks) if self.real.masked else None

    @cached_property
    def cameras_digest(self) -> str:
        """Of the cameras, and of which picture is shown from where."""
        return digest_of_cameras(self.dataset)

    def folder_of(self, **content: Any) -> Path:
        """Where rows of what `content` says are kept."""
        return self._folder / digest_of_values(content)


class _Session:
    """The metrics of one generator."""

    def __init__(self, measurer: Measurer, G: TriPlaneGenerator, tools: Tools, stop: Callable[[], bool]):
        self.measurer, self.G, self.tools, self.stop = measurer, G, tools, stop
        self.settings = measurer.settings
        if "seg" in self.settings.metrics and not G.grid_model.masked:
            raise UserError("seg compares the network's own masks, and this one makes none: leave it out")
        self.labels = measurer.dataset.item_labels()
        self.kinds = ("features", "probabilities")[: 2 if "is" in {r.kind for r in self.settings.requests} else 1]
        self._temporary: dict[Path, Store] = {}

    def figures(self, request: Request, view: str) -> Figures | None:
        """What a metric comes to, in the first process; None in others."""
        if request.kind in DISTANCES:
            return self._distances(request, view)
        return getattr(self, f"_{request.kind}")(request, view)

    def close(self) -> None:
        """Remove the rows of this generator: what they were for is done."""
        for store in self._temporary.values():
            store.clear()

    def fingerprint(self, request: Request, view: str) -> dict[str, Any]:
        """All that a figure depends on."""
        settings, measurer = self.settings, self.measurer
        found = dict(network=self.network, seed=settings.seed, truncation=settings.truncation, images=request.count)
        packages = ["torch", "numpy", "scipy"]
        if request.by_view:
            conditioning = "drawn apart" if request.apart else "the same"
            law = dict(measurer.dataset.law, cameras=measurer.cameras_digest, view=view, conditioning=conditioning)
            found.update(data=measurer.data_digest, camera_law=law)
        else:
            found["camera_law"] = dict(conditioning="frontal", cameras="level, from all round")
        if request.kind == "seg" or request.kind in DISTANCES and settings.background != "own":
            found["masks"] = measurer.masks_digest
        if request.kind in DISTANCES:
            found.update(resize=self.tools.detector.resize, background=settings.background)
        elif request.kind in self.tools.told and request.kind != "id":
            packages.append("mediapipe")
        if request.kind in self.tools.told:
            found["detector"] = self.tools.told[request.kind]
        return dict(found, versions=results.versions(packages))

    @cached_property
    def network(self) -> str:
        """The generator's digest."""
        return digest_of_generator(self.G)

    # Rows

    def _rows_of_real(
        self, numbers: np.ndarray, kind: str, compute: Callable[[np.ndarray], Rows], names: tuple[str, ...], **content: Any
    ) -> Rows | None:
        """Rows of pictures of the data, which are kept for the next time; `content` is what they depend on besides."""
        folder = self.measurer.folder_of(real=self.measurer.data_digest, kind=kind, **content)
        store = Store(folder, PICTURES_CHUNK, stop=self.stop)
        return store.rows(numbers, compute, names, f"{kind} of real pictures")

    def _rows_of_made(
        self,
        request: Request,
        view: str,
        kind: str,
        compute: Callable[[pictures.Made, np.ndarray], Rows],
        names: tuple[str, ...],
    ) -> Rows | None:
        """Rows of pictures that are made from the cameras of `view`; ``compute(made, labels)`` gives those of a few."""
        settings = self.settings
        row = Row(self.measurer.dataset, settings.seed, self.G.z_dim, request.apart)
        background = settings.background if request.kind in DISTANCES else "own"
        store = self._store(
            PICTURES_CHUNK, kind, cameras=self.measurer.cameras_digest, apart=request.apart, background=background
        )

        def compute_all(numbers: np.ndarray) -> Rows:
            parts = []
            for start in range(0, len(numbers), settings.batch):
                draws = [row[int(number)] for number in numbers[start : start + settings.batch]]
                made = pictures.make(self.G, draws, self.labels, settings.truncation)
                parts.append(compute(made, self.labels[[draw.rendered for draw in draws]]))
            return {name: np.concatenate([part[name] for part in parts]) for name in names}

        return store.rows(row.numbers(view, request.count), compute_all, names, f"{request.name}, {view}: {kind}")

    def _rows_of_heads(
        self, request: Request, compute: Callable[[Face, int], Rows], names: tuple[str, ...], **content: Any
    ) -> Rows | None:
        """Rows of heads, of as many seeds as are asked for; ``compute(head, number)`` gives one's, without the first axis."""
        settings = self.settings
        store = self._store(HEADS_CHUNK, request.kind, **content)

        def compute_all(numbers: np.ndarray) -> Rows:
            seeds = [settings.seed + int(number) for number in numbers]
            made = [compute(heads.head_of(self.G, seed, settings.truncation), int(n)) for seed, n in zip(seeds, numbers)]
            return {name: np.stack([part[name] for part in made]) for name in names}

        return store.rows(np.arange(request.count), compute_all, names, request.name)

    def _store(self, chunk: int, kind: str, **content: Any) -> Store:
        """Rows of this generator, removed when all metrics are done."""
        settings = self.settings
        tools = sorted((name, told["sha256"]) for name, told in self.tools.told.items())
        content.update(network=self._network_everywhere, kind=kind, seed=settings.seed, truncation=settings.truncation)
        store = Store(self.measurer.folder_of(tools=tools, **content), chunk, temporary=True, stop=self.stop)
        return self._temporary.setdefault(store.folder, store)

    @cached_property
    def _network_everywhere(self) -> str:
        return distributed.broadcast_object(self.network if distributed.get_rank() == 0 else None)

    # Distances of features

    def _distances(self, request: Request, view: str) -> Figures | None:
        detector, device, background = self.tools.detector, self.measurer.device, self.settings.background

        def of_made(made: pictures.Made, _: np.ndarray) -> Rows:
            return detector.ask(pictures.with_background(made, background), self.kinds, device)

        def of_real(numbers: np.ndarray) -> Rows:
            parts = np.array_split(numbers, math.ceil(len(numbers) / self.settings.batch))
            asked = [detector.ask(self.measurer.real.read(part, background), ("features",), device) for part in parts]
            return {"features": np.concatenate([part["features"] for part in asked])}

        made = self._rows_of_made(request, view, "features", of_made, self.kinds)
        real = None
        if request.kind != "is":
            keys = self.measurer.real.keys[in_view(self.labels, view)]
            masks = self.measurer.masks_digest if background != "own" else None
            content = dict(detector=detector.sha256, resize=detector.resize, background=background, masks=masks)
            real = self._rows_of_real(keys, "features", of_real, ("features",), **content)
        if made is None:
            return None
        name = self._name(request, view)
        if request.kind == "is":
            mean, deviation = statistics.inception_score(made["probabilities"])
            return {f"{name}_mean": mean, f"{name}_std": deviation}
        pair = real["features"], made["features"]
        if request.kind == "fid":
            return {name: statistics.frechet_distance(*pair)}
        if request.kind == "kid":
            return {name: statistics.kernel_distance(*pair)}
        precision, recall = statistics.precision_recall(*pair)
        return {f"{name}_precision": precision, f"{name}_recall": recall}

    def _name(self, request: Request, view: str) -> str:
        """Such as fid50k_full, or fid2k_efflite0_back where the features are not those of published figures."""
        own = self.tools.detector.name if self.tools.detector.name != PUBLISHED[request.kind] else ""
        form = "random" if request.apart else "full" if not own and request.kind != "is" else ""
        return "_".join(filter(None, (request.stem, own, form, "" if view == "all" else view)))

    # Heads from all round

    def _consistency(self, request: Request, view: str) -> Figures | None:
        def compute(head: Face, number: int) -> Rows:
            found = heads.agreement_of(self.G, head, 360 * number / request.count)
            counts = [(found[angle].agreeing, found[angle].contradicted, found[angle].hidden) for angle in heads.ANGLES]
            return {"counts": np.array(counts)}

        rows = self._rows_of_heads(request, compute, ("counts",), heads=request.count)
        if rows is None:
            return None
        shares = [[Agreement(*map(int, counts)).share for counts in head] for head in rows["counts"]]
        return _means({f"consistency_{angle:g}": 100 * of for angle, of in zip(heads.ANGLES, np.array(shares).T)})

    def _two_faces(self, request: Request, view: str) -> Figures | None:
        def compute(head: Face, _: int) -> Rows:
            seen = {side: heads.pictures_from(self.G, head, yaws) for side, yaws in heads.SIDES.items()}
            return {side: np.array([self.tools.finder.shows_face(one) for one in views]) for side, views in seen.items()}

        rows = self._rows_of_heads(request, compute, tuple(heads.SIDES))
        if rows is None:
            return None
        found = {side: 100 * rows[side].mean(axis=1) for side in heads.SIDES}
        return _means({"two_faces": found["back"], "faces_in_front": found["front"]})

    def _coverage(self, request: Request, view: str) -> Figures | None:
        def compute(head: Face, _: int) -> Rows:
            return {"filled": np.packbits(heads.filled(self.G, head))}

        rows = self._rows_of_heads(request, compute, ("filled",))
        if rows is None:
            return None
        shared = heads.overlaps(np.unpackbits(rows["filled"], axis=1))
        apart = 1 - shared[~np.eye(len(shared), dtype=bool)]
        return {"coverage": statistics.effective_number(shared), "coverage_distance": 100 * float(apart.mean())}

    def _id(self, request: Request, view: str) -> Figures | None:
        def compute(head: Face, _: int) -> Rows:
            labels = [heads.level_camera(self.G, yaw)[0] for yaw in ID_YAWS]
            faces = map(face_of, heads.pictures_from(self.G, head, ID_YAWS), labels)
            return {"embedded": self.tools.embedder.embed(np.stack(list(faces)))}

        rows = self._rows_of_heads(request, compute, ("embedded",))
        if rows is None:
            return None
        middle = ID_YAWS.index(0.0)
        first = rows["embedded"][:, middle]
        same = np.einsum("nvd,nd->nv", np.delete(rows["embedded"], middle, axis=1), first).mean(axis=1)
        others = (first @ first.T)[~np.eye(len(first), dtype=bool)]
        return dict(_means({"id": same}), id_others=float(others.mean()))

    # Pictures beside what is seen in them

    def _seg(self, request: Request, view: str) -> Figures | None:
        def of_made(made: pictures.Made, _: np.ndarray) -> Rows:
            return {"iou": np.array([self._overlap(*pair) for pair in zip(pictures.as_rows(made.images), made.masks[:, 0])])}

        def of_real(numbers: np.ndarray) -> Rows:
            images, masks = self.measurer.real.read_whole(numbers)
            return {"iou": np.array([self._overlap(*pair) for pair in zip(pictures.as_rows(images), masks[:, 0])])}

        made = self._rows_of_made(request, view, "seg", of_made, ("iou",))
        real = None
        if self.measurer.real.masked:
            content = dict(tool=self.tools.told["seg"], masks=self.measurer.masks_digest)
            real = self._rows_of_real(self._some_real(request, view), "seg", of_real, ("iou",), **content)
        return self._beside(made, real, view, lambda rows: {"seg": 100 * rows["iou"]})

    def _overlap(self, picture: np.ndarray, mask: np.ndarray) -> float:
        """The IoU of a mask [H, H] and the one that the segmenter sees in the picture; nan where it sees nobody."""
        seen = self.tools.segmenter.mask(Image.fromarray(picture))
        if seen is None:
            return math.nan
        head, found = mask >= heads.HEAD_LEVEL, np.asarray(seen) >= 255 * heads.HEAD_LEVEL
        return float((head & found).sum() / max((head | found).sum(), 1))

    def _pose(self, request: Request, view: str) -> Figures | None:
        def errors(images: np.ndarray, labels: np.ndarray) -> Rows:
            return {"off": np.stack([self._pose_off(*pair) for pair in zip(pictures.as_rows(images), labels)])}

        def of_real(numbers: np.ndarray) -> Rows:
            return errors(self.measurer.real.read(numbers), self.measurer.real.labels(numbers))

        made = self._rows_of_made(request, view, "pose", lambda made, labels: errors(made.images, labels), ("off",))
        content = dict(tool=self.tools.told["pose"], cameras=self.measurer.cameras_digest)
        real = self._rows_of_real(self._some_real(request, view), "pose", of_real, ("off",), **content)
        return self._beside(made, real, view, lambda rows: {"pose_yaw": rows["off"][:, 0], "pose_pitch": rows["off"][:, 1]})

    def _pose_off(self, picture: np.ndarray, label: np.ndarray) -> np.ndarray:
        """How many degrees yaw and pitch of the largest face are off the label's [2]; nan where there is none."""
        found = self.tools.finder.find(Photo(Image.fromarray(picture)))
        if not found:
            return np.full(2, np.nan)
        told = camera_utils.yaw_pitch_roll_degrees(torch.from_numpy(label)).numpy()
        return np.abs((np.array(found[0].view.angles) - told + 180) % 360 - 180)[:2]

    def _some_real(self, request: Request, view: str) -> np.ndarray:
        """Real pictures of `view`, as many as are made but each once, drawn by the seed."""
        keys = np.unique(self.measurer.real.keys[in_view(self.labels, view)])
        return np.random.default_rng(self.settings.seed).permutation(keys)[: request.count]

    def _beside(self, made: Rows | None, real: Rows | None, view: str, take: Callable[[Rows], dict]) -> Figures | None:
        """Means of what could be seen in made pictures, the same of real ones, and the shares in which it could."""
        if made is None:
            return None
        figures = {}
        for end, rows in (("", made), ("_real", real)):
            if rows is None:
                continue
            values = take(rows)
            first = next(iter(values))
            values[f"{first.partition('_')[0]}_seen"] = 100.0 * np.isfinite(values[first])
            end += "" if view == "all" else f"_{view}"
            figures.update(_means({f"{name}{end}": value for name, value in values.items()}))
        return figures


def _means(groups: dict[str, np.ndarray]) -> Figures:
    """The mean of each group and its standard error, without what is nan; None where there are too few."""
    found: Figures = {}
    for name, values in groups.items():
        values = values[np.isfinite(values)]
        found[name] = float(values.mean()) if len(values) else None
        found[f"{name}_error"] = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return found
