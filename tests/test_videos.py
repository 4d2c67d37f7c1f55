"""Videos: which seed goes where, curves through keyframes, and files that players can read."""

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from dnnlib import UserError
from training import videos


def test_keyframes_fill_the_grid_in_order():
    assert videos.keyframe_seeds([5, 6, 7, 8], cells=4) == [[5], [6], [7], [8]]
    assert videos.keyframe_seeds([5, 6, 7, 8], cells=2) == [[5, 6], [7, 8]]
    assert videos.keyframe_seeds([5, 6, 7], cells=2, num_keyframes=2) == [[5, 6], [7, 5]]


def test_shuffling_is_reproducible_and_keeps_all_seeds():
    seeds = list(range(12))
    shuffled = videos.keyframe_seeds(seeds, 1, shuffle_seed=1)[0]
    assert shuffled == videos.keyframe_seeds(seeds, 1, shuffle_seed=1)[0]
    assert shuffled != seeds and sorted(shuffled) == seeds
    assert shuffled != videos.keyframe_seeds(seeds, 1, shuffle_seed=2)[0]


def test_seeds_that_do_not_fill_the_grid_are_refused():
    with pytest.raises(UserError, match="3 seeds do not fit in 1 cells of 2 keyframes"):
        videos.keyframe_seeds([5, 6, 7], cells=1, num_keyframes=2)
    with pytest.raises(UserError, match="3 seeds do not fill a grid of 2 cells.*--num-keyframes"):
        videos.keyframe_seeds([1, 2, 3], cells=2)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_curve_goes_through_its_keyframes_and_closes(count):
    keyframes = torch.from_numpy(np.random.RandomState(0).randn(count, 3, 4)).to(torch.float32)
    curve = videos.keyframe_curve(keyframes)
    for index, keyframe in enumerate(keyframes):
        assert curve(index).dtype == torch.float32 and curve(index).shape == (1, 3, 4)
        torch.testing.assert_close(curve(index)[0], keyframe)
    torch.testing.assert_close(curve(count), curve(0))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_curve_has_no_kink_where_it_closes(count):
    curve = videos.keyframe_curve(torch.from_numpy(np.random.RandomState(0).randn(count, 3, 4)))
    step = 1e-4
    before, after = (curve(count) - curve(count - step)) / step, (curve(step) - curve(0)) / step
    torch.testing.assert_close(before, after, atol=0.01, rtol=0)  # slopes are about 2


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_video_file_has_the_frames_and_size_it_should(tmp_path, size):
    height, width = size
    frames = [np.full([height, width, 3], 40 * index, dtype=np.uint8) for index in range(5)]
    videos.write_video(iter(frames), tmp_path / "a.mp4", fps=25, total=5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with imageio.get_reader(tmp_path / "a.mp4") as video:
        meta, read = video.get_meta_data(), [frame for frame in video]  # its length is not known beforehand
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p") and meta["fps"] == 25
    assert len(read) == 5 and read[0].shape == (height + height % 2, width + width % 2, 3)
    np.testing.assert_allclose([frame.mean() for frame in read], [0, 40, 80, 120, 160], atol=3)


def test_nothing_is_left_when_drawing_fails(tmp_path):
    def frames():
        yield np.zeros([16, 16, 3], dtype=np.uint8)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        videos.write_video(frames(), tmp_path / "a.mp4", fps=10)
    assert list(tmp_path.iterdir()) == []
