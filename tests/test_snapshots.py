"""What a run shows of itself while it trains."""

import pytest
import torch

from training.dataset import HeadDataset
from training.snapshots import Grids


@pytest.mark.parametrize("benchmark", [True, False])
def test_a_sheet_of_pictures_tries_no_algorithms_out(head_data, tmp_path, monkeypatch, benchmark):
    """The trials of cuDNN take what memory is free; those of training are left as they were."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
    tried = []

    def generator(z, c, noise_mode):
        tried.append(torch.backends.cudnn.benchmark)
        colours, values = torch.zeros(len(z), 3, 8, 8), torch.ones(len(z), 1, 8, 8)
        return dict(image=colours, image_raw=colours, image_depth=values, image_mask=values)

    grids = Grids(HeadDataset(*map(str, head_data)), z_dim=4, device=torch.device("cpu"), seed=0)
    grids.save_fakes(tmp_path, "fakes", generator, batch=4)
    assert tried == [False] * 2 and torch.backends.cudnn.benchmark == benchmark
    assert (tmp_path / "fakes.png").exists()
