"""Teaching with known depths: placed samples, the terms, and a course that goes on where it stopped."""

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import camera_utils
from demo import teach
from demo.heads.truth import depth_image
from demo.teaching import course, distil, terms
from demo.teaching.grids import FreeGrids
from demo.teaching.people import load_people
from demo.teaching.placed_samples import Placement, Rays, cast_rays, march, place
from dnnlib import EasyDict, UserError
from inference import synthesis
from training.loading import load_network
from training.options import SCENES
from training.volumetric_rendering import ray_sampler
from training.volumetric_rendering.ray_marcher import march_rays

PIXELS = 128
RADIUS = 0.25  # of the ball that the field of `Ball` shows


def ball_depths(label, radius, pixels):
    """Depths along the camera's z axis of a ball about the origin, 0 where it is missed: [pixels, pixels]."""
    cam2world, intrinsics = camera_utils.unpack_label(label)
    origins, directions = ray_sampler.sample_rays(cam2world, intrinsics, pixels)
    along = (origins * directions).sum(dim=-1)
    root = along**2 - (origins**2).sum(dim=-1) + radius**2
    distance = torch.where(root > 0, -along - root.clamp(min=0).sqrt(), torch.zeros(()))
    return (distance * (directions * cam2world[:, None, :3, 2]).sum(dim=-1)).reshape(pixels, pixels)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Three people of two views, as demo/render_heads.py lays them out: balls of different size and colour."""
    folder = tmp_path_factory.mktemp("rendered")
    for person in range(3):
        name, labels = f"{person:05d}", [camera_utils.orbit_label(1.5 * view, 0.0) for view in range(2)]
        for part in ("people", f"img/{name}", f"seg/{name}", f"truth/{name}"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for view, label in enumerate(labels):
            depth = ball_depths(label, 0.2 + 0.03 * person, PIXELS).numpy()
            colours = np.where((depth > 0)[..., None], [60 + 80 * person, 120, 200 - 60 * person], 40).astype(np.uint8)
            Image.fromarray(colours).save(folder / "img" / name / f"{view:03d}.jpg")
            Image.fromarray(255 * (depth > 0).astype(np.uint8)).save(folder / "seg" / name / f"{view:03d}.png")
            depth_image(depth).save(folder / "truth" / name / f"{view:03d}.png")
        views = [dict(label=label[0].tolist()) for label in labels]
        (folder / "people" / f"{name}.json").write_text(json.dumps(dict(views=views)))
    return folder


class Ball:
    """A generator whose field is a ball of smooth colours with a soft surface."""

    rendering_kwargs = EasyDict(SCENES["ffhq"], clamp_mode="softplus", triplane_depth=1)

    def query(self, grids, points):
        inside = RADIUS - points.norm(dim=-1, keepdim=True)
        return 4000 * inside, torch.sin(4 * points)


def test_a_few_placed_samples_see_what_a_thousand_see():
    label = camera_utils.orbit_label(0.4, 0.1)
    depths = ball_depths(label, RADIUS, 32)[None]
    rays = cast_rays(label, depths, (depths[:, None] > 0).float(), 32, persons=1)
    torch.manual_seed(0)
    seen, _ = march(Ball(), None, rays, Placement())
    distances = torch.linspace(2.25, 3.3, 2000)[None, None, :, None].expand(1, 32 * 32, -1, -1)
    points = rays.origins[:, :, None] + distances * rays.directions[:, :, None]
    density, features = (part.unflatten(1, points.shape[1:3]) for part in Ball().query(None, points.flatten(1, 2)))
    dense = march_rays(features, density, distances)
    # Away from the silhouette, where rays graze the surface.  Six samples in 0.12 are 0.02 apart, over which the colours,
    # of slope 4, change by 0.08: that is the worst, the mean far less.
    steep = rays.hit[..., 0] & (
        ((rays.origins + rays.distances * rays.directions) * rays.directions).sum(dim=-1) < -0.6 * RADIUS
    )
    assert steep.sum() > 100
    off = (seen.features - dense.features)[steep].abs()
    assert off.mean() < 0.02 and off.max() < 0.08
    assert (seen.opacity - dense.opacity)[steep].abs().max() < 0.02
    assert (seen.depth - dense.depth)[steep].abs().mean() < 0.005
    empty = ~rays.hit[..., 0]
    assert seen.opacity[empty].mean() < 0.05


def test_samples_are_sorted_and_where_the_placement_says():
    surface, hit = torch.tensor([[[2.7], [2.5], [0.0]]]), torch.tensor([[[True], [True], [False]]])
    rays = Rays(torch.zeros(1, 3, 3), torch.ones(1, 3, 3), surface, hit)
    placement = Placement(free=3, near=4, behind=2, width=0.05)
    distances = place(rays, placement, 2.25, 3.3)[..., 0]
    assert distances.shape == (1, 3, 9)
    assert (distances.diff(dim=-1) > 0).all() and distances.min() >= 2.25 and distances.max() <= 3.3
    off = distances - surface
    assert (off[0, :2, :3] < -0.05).all() and (off[0, :2, 3:7].abs() <= 0.05).all() and (off[0, :2, 7:] > 0.05).all()
    assert distances[0, 2].diff().max() < 2 * 1.05 / 9


def test_depth_difference_is_how_far_off_the_weights_are():
    rays = Rays(None, None, torch.full([1, 2, 1], 2.7), torch.tensor([[[True], [False]]]))
    distances = torch.tensor([2.5, 2.7, 2.9]).reshape(1, 1, 3, 1).expand(1, 2, -1, -1)
    weights = torch.tensor([0.25, 0.5]).reshape(1, 1, 2, 1).expand(1, 2, -1, -1)
    assert terms.depth_difference(weights, distances, rays).item() == pytest.approx(0.75 * 0.1, abs=1e-6)


def test_hollowness_is_of_what_lies_behind_the_surface():
    label = camera_utils.orbit_label(0.0, 0.0)
    depths = ball_depths(label, RADIUS, 16)[None]
    rays = cast_rays(label, depths, (depths[:, None] > 0).float(), 16, persons=1)
    for level, expected in ((0.0, 1.0), (terms.SOLID_DENSITY / 2, 0.5), (2 * terms.SOLID_DENSITY, 0.0)):

        class Field:
            def density(self, grids, points, level=level):
                return torch.where(points.norm(dim=-1, keepdim=True) < RADIUS, level, -1e3)

        assert terms.hollowness(Field(), None, rays).item() == pytest.approx(expected, abs=0.02)


def test_gradients_of_the_terms():
    torch.manual_seed(0)
    weights = torch.rand(1, 2, 3, 1, dtype=torch.float64, requires_grad=True)
    distances = torch.linspace(2.3, 3.2, 4, dtype=torch.float64).reshape(1, 1, 4, 1).expand(1, 2, -1, -1)
    rays = Rays(None, None, torch.full([1, 2, 1], 2.71, dtype=torch.float64), torch.ones(1, 2, 1, dtype=torch.bool))
    assert torch.autograd.gradcheck(lambda w: terms.depth_difference(w, distances, rays), [weights])
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    target, share = torch.randn(1, 3, 16, 16, dtype=torch.float64), torch.rand(1, 1, 16, 16, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: terms.pyramid_difference(x, target, share), [images])
    opacity = (0.2 + 0.6 * torch.rand(1, 1, 8, 8, dtype=torch.float64)).requires_grad_()
    mask = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: terms.mask_difference(x, mask), [opacity])
    assert torch.autograd.gradcheck(terms.roughness, [images])


def test_pyramid_difference():
    images, weights = torch.randn([2, 3, 16, 16]), torch.ones([2, 1, 16, 16])
    assert terms.pyramid_difference(images, images, weights) == 0
    assert terms.pyramid_difference(images + 0.25, images, weights).item() == pytest.approx(0.25, abs=1e-6)
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1  # means nothing from the second level on
    found = terms.pyramid_difference(images + checkers, images, weights)
    assert found.item() == pytest.approx(1 / terms.PYRAMID_LEVELS, abs=1e-6)
    weights[..., :8] = 0
    wrong = images.clone()
    wrong[..., :8] += 1
    assert terms.pyramid_difference(wrong, images, weights) == 0


def test_free_grids_share_a_mean_and_differ_by_person():
    grids = FreeGrids(people=3, channels=2, size=64)
    assert grids.mean().shape == (1, 2, 64, 64) and grids.difference(torch.tensor([2, 0])).shape == (2, 2, 64, 64)
    grids.difference(torch.tensor([1])).sum().backward()
    assert [table.weight.grad.coalesce().indices().tolist() for table in grids.own] == [[[1]]] * 2
    with torch.no_grad():
        grids.own[0].weight[1] = 1
    assert (grids.difference(torch.tensor([1])) == 4).all() and (grids.difference(torch.tensor([0])) == 0).all()


def test_whitened_latents_are_the_principal_components():
    torch.manual_seed(0)
    rows = torch.randn(40, 5) * torch.tensor([10.0, 5.0, 3.0, 2.0, 1.0])
    latents, scales = distil.whitened(rows, 8)
    assert torch.allclose(latents[:, :5].T @ latents[:, :5] / 40, torch.eye(5), atol=1e-4)
    assert (latents[:, :5].mean(dim=0).abs() < 1e-4).all() and scales.square().mean().item() == pytest.approx(1)
    # A linear map of the latents gives the rows back.
    centred = rows - rows.mean(dim=0)
    back = latents[:, :5] @ torch.linalg.lstsq(latents[:, :5], centred).solution
    assert torch.allclose(back, centred, atol=1e-3)
    assert torch.allclose(scales[:5] / scales[0], torch.linalg.svdvals(centred) / torch.linalg.svdvals(centred)[0], atol=1e-4)


@pytest.mark.parametrize("harm", ["missing truth", "one person", "sizes"])
def test_a_set_that_does_not_do(rendered, tmp_path, harm):
    folder = tmp_path / "set"
    shutil.copytree(rendered, folder)
    if harm == "missing truth":
        (folder / "truth" / "00001" / "001.png").unlink()
    elif harm == "one person":
        for name in ("00001", "00002"):
            (folder / "people" / f"{name}.json").unlink()
    else:
        Image.new("L", (64, 64)).save(folder / "seg" / "00000" / "000.png")
    with pytest.raises(UserError, match="render_heads.py --truth true"):
        load_people(folder)


def run(rendered, outdir, *options):
    pytest.importorskip("efficientnet_lite_pytorch")
    arguments = ["--outdir", str(outdir), "--data", str(rendered), "--device", "cpu", "--effort", "0.125", *options]
    return CliRunner().invoke(teach.main, arguments, catch_exceptions=False)


@pytest.mark.slow
def test_a_course_goes_on_where_it_stopped_and_train_takes_its_network(rendered, tmp_path, monkeypatch):
    assert run(rendered, tmp_path / "straight").exit_code == 0
    monkeypatch.setattr(teach, "SECONDS_BETWEEN_SAVES", 0)  # after each step
    results = [run(rendered, tmp_path / "stopped", "--minutes", "0.0001") for _ in range(9)]  # 2, 5 and 2 steps, one at a time
    assert all(result.exit_code == 0 for result in results)
    assert "Stopped in the lesson pictures" in results[-2].output and "Wrote" in results[-1].output
    straight, stopped = (load_network(tmp_path / name / course.SNAPSHOT, "G_ema") for name in ("straight", "stopped"))
    for (name, one), other in zip(straight.state_dict().items(), stopped.state_dict().values()):
        assert torch.equal(one, other), name
    G = synthesis.load_generator(str(tmp_path / "straight" / course.SNAPSHOT), "cpu")
    ws = synthesis.seeds_to_ws(G, [0], camera_utils.orbit_label(0.0, 0.0))
    assert G.synthesis(ws, camera_utils.orbit_label(0.0, 0.0), noise_mode="const")["image"].shape == (1, 3, PIXELS, PIXELS)
    lessons = [json.loads(line)["lesson"] for line in (tmp_path / "straight" / "stats.jsonl").read_text().splitlines()]
    assert lessons == ["fit", "distil", "pictures"]
