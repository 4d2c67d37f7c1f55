"""Videos: which seed goes where, curves through keyframes, and files that players can read."""

import threading

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from dnnlib import UserError
from inference import videos


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
        meta, read = video.get_meta_data(), [frame for frame in video]  # noqa: C416 (list() would ask for its length, which is infinite)
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


def noise_frames(count):
    rng = np.random.default_rng(0)
    return [rng.integers(256, size=[32, 32, 3], dtype=np.uint8) for _ in range(count)]


def test_video_is_the_one_that_is_encoded_frame_by_frame(tmp_path, monkeypatch):
    frames = noise_frames(20)
    videos.write_video(iter(frames), tmp_path / "threaded.mp4", fps=10)

    class AtOnce(videos.ThreadPoolExecutor):
        def submit(self, *call):
            future = super().submit(*call)
            future.exception()
            return future

    monkeypatch.setattr(videos, "ThreadPoolExecutor", AtOnce)
    videos.write_video(iter(frames), tmp_path / "plain.mp4", fps=10)
    assert (tmp_path / "threaded.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_frames_are_made_while_others_are_encoded_but_not_without_end(tmp_path, monkeypatch):
    made, encoded, go_on = [], [], threading.Event()

    class Writer:
        def append_data(self, frame):
            assert go_on.wait(timeout=30)
            encoded.append(frame.min())

        def close(self):
            tmp_path.joinpath("closed").touch()

    def frames():
        for index in range(10):
            if index == videos.QUEUE_FRAMES:
                assert not encoded
                go_on.set()
            made.append(index)
            assert len(made) - len(encoded) <= videos.QUEUE_FRAMES + 1
            yield np.full([2, 2, 3], index, dtype=np.uint8)

    monkeypatch.setattr(imageio, "get_writer", lambda path, **_: path.touch() or Writer())
    videos.write_video(frames(), tmp_path / "a.mp4", fps=10)
    assert encoded == list(range(10)) and (tmp_path / "closed").exists()


@pytest.mark.parametrize("broken", [0, 19])
def test_errors_of_encoding_are_errors_of_writing(tmp_path, monkeypatch, broken):
    get_writer = imageio.get_writer

    def breaking(*args, **kwargs):
        writer = get_writer(*args, **kwargs)
        append, numbers = writer.append_data, iter(range(20))

        def append_data(frame):
            if next(numbers) == broken:
                raise OSError("the disk is full")
            append(frame)

        writer.append_data = append_data
        return writer

    monkeypatch.setattr(imageio, "get_writer", breaking)
    with pytest.raises(OSError, match="the disk is full"):
        videos.write_video(iter(noise_frames(20)), tmp_path / "a.mp4", fps=10)
    assert list(tmp_path.iterdir()) == []
