"""Learning rendered people by heart: who is who, the differences, and a run that resumes."""

import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import camera_utils
from demo import warm_start
from dnnlib import UserError
from dnnlib.archive import ArchiveWriter
from training.dataset import HeadDataset
from training.loading import load_network
from training.networks_stylegan2 import FullyConnectedLayer, MappingNetwork, normalize_second_moment


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three people of two views each, as demo/render_heads.py lays them out: a disc of the person's grey."""
    folder = tmp_path_factory.mktemp("people")
    y, x = np.mgrid[:128, :128] / 128
    disc, labels = np.hypot(x - 0.5, y - 0.5) < 0.3, []
    with ArchiveWriter(folder / "img.zip") as images, ArchiveWriter(folder / "seg.zip") as masks:
        for person in range(3):
            for view in range(2):
                name = f"{person:05d}/{view:03d}.png"
                for archive, array in ((images, np.stack([disc * 80 * person] * 3, axis=-1)), (masks, 255 * disc)):
                    data = io.BytesIO()
                    PIL.Image.fromarray(array.astype(np.uint8)).save(data, "png")
                    archive.write(name, data.getvalue())
                labels.append([name, camera_utils.orbit_label(view * 1.5, 0.0)[0].tolist()])
        images.write("dataset.json", json.dumps(dict(labels=labels)).encode())
    return folder / "img.zip", folder / "seg.zip"


def test_people_are_folders(people):
    assert warm_start.people_of(HeadDataset(*map(str, people))).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_folder_of_many_is_no_person(people, monkeypatch):
    monkeypatch.setattr(warm_start, "MOST_VIEWS", 1)
    with pytest.raises(UserError, match="folder for each person"):
        warm_start.people_of(HeadDataset(*map(str, people)))


def test_pyramid_difference():
    images, weights = torch.randn([2, 3, 16, 16]), torch.ones([2, 1, 16, 16])
    assert warm_start.pyramid_difference(images, images, weights) == 0
    assert warm_start.pyramid_difference(images + 0.25, images, weights).item() == pytest.approx(0.25, abs=1e-6)
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1  # means nothing from the second level on
    found = warm_start.pyramid_difference(images + checkers, images, weights)
    assert found.item() == pytest.approx(1 / warm_start.PYRAMID_LEVELS, abs=1e-6)
    weights[..., :8] = 0
    wrong = images.clone()
    wrong[..., :8] += 1
    assert warm_start.pyramid_difference(wrong, images, weights) == 0


def run(people, outdir, images, adversary):
    arguments = ["--outdir", str(outdir), "--img_data", str(people[0]), "--seg_data", str(people[1]), "--batch", "2"]
    arguments += ["--kimg", str(images / 1000), "--adversary", str(adversary), "--sharpness", "2", "--device", "cpu"]
    return CliRunner().invoke(warm_start.main, arguments)


@pytest.mark.parametrize("adversary", [0, 0.1])
def test_a_run_goes_on_where_it_stopped_and_train_takes_it(people, tmp_path, adversary):
    assert run(people, tmp_path / "straight", 6, adversary).exit_code == 0
    assert run(people, tmp_path / "stopped", 2, adversary).exit_code == 0
    shutil.copytree(tmp_path / "stopped", tmp_path / "first")
    assert run(people, tmp_path / "stopped", 6, adversary).exit_code == 0
    for network, learns in (("G", True), ("D", adversary > 0)):
        straight, stopped, first = (
            load_network(tmp_path / name / warm_start.SNAPSHOT, network).state_dict()
            for name in ("straight", "stopped", "first")
        )
        assert all(torch.equal(tensor, stopped[name]) for name, tensor in straight.items())
        assert any(not torch.equal(tensor, first[name]) for name, tensor in straight.items()) == learns


def test_with_normal_latents_whitens_what_the_people_are():
    torch.manual_seed(0)
    mapping = MappingNetwork(z_dim=8, c_dim=0, w_dim=6, num_ws=None)
    mapping.fc0.bias.data.normal_()
    latents = torch.randn([50, 8]) @ torch.randn([8, 8]) + torch.randn([8])
    learned = SimpleNamespace(backbone=SimpleNamespace(mapping=mapping))
    normal = warm_start.with_normal_latents(learned, latents).backbone.mapping
    seen = normalize_second_moment(latents)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(seen.T)), (seen - seen.mean(dim=0)).T.numpy()).T
    assert np.cov(white.T) == pytest.approx(np.eye(8), abs=1e-4)
    torch.testing.assert_close(normal.fc0(torch.from_numpy(white).float()), mapping.fc0(seen), atol=1e-4, rtol=0)


def test_sharpen_leaves_surfaces_where_they_are():
    output = FullyConnectedLayer(4, 3, lr_multiplier=0.5)
    generator = SimpleNamespace(decoder=SimpleNamespace(net=[None, None, output]))
    hidden = torch.randn([100, 4])
    before = output(hidden).detach()
    warm_start.sharpen(generator, 3.0)
    after = output(hidden).detach()
    surface = warm_start.SURFACE_DENSITY
    torch.testing.assert_close(after[:, 0] - surface, 3 * (before[:, 0] - surface))
    assert torch.equal(after[:, 1:], before[:, 1:])
