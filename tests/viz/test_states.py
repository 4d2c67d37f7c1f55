"""The state of a picture: its limits, its camera, and the command line that says the same."""

import math
import shlex

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import camera_utils
from dnnlib import UserError
from viz import states
from viz.states import State


@pytest.mark.parametrize(
    "wrong",
    [
        dict(seed=-1),
        dict(seed=1.5),
        dict(seed="x"),
        dict(seed=2**32),
        dict(trunc=math.nan),
        dict(trunc=None),
        dict(walk=1.1),
        dict(mix=(1, 2, 3)),
        dict(target=(0.0, 0.0)),
        dict(directions=(1.0,) * 17),
        dict(directions=(math.inf,)),
        dict(image_mode="picture"),
        dict(background=["own"]),
        dict(distance=0.1),
    ],
)
def test_what_a_page_may_not_ask_for(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        State(**wrong)


def test_lists_and_whole_floats_are_taken_as_what_they_mean():
    state = State(seed=3.0, mix=[1, 4], directions=[1, 2])
    assert state == State(seed=3, mix=(1, 4), directions=(1.0, 2.0)) and isinstance(state.seed, int)
    assert hash(state)  # faces are kept by state


@pytest.mark.parametrize("yaw, pitch, target", [(0, 0, (0, 0, 0)), (135, -40, (0.1, -0.2, 0.05)), (301, 25, (0, 0, 0))])
def test_the_camera_that_a_page_reports_comes_back_as_the_state_that_it_was_given(yaw, pitch, target):
    state = State(yaw=yaw, pitch=pitch, distance=2.2, target=target)
    view = states.view_of(states.position_of(state), np.array(target))
    assert states.is_same_view(view, state)
    assert (view["yaw"], view["pitch"], view["distance"]) == pytest.approx((yaw, pitch, 2.2), abs=0.01)
    assert not states.is_same_view(dict(view, yaw=yaw + 1), state)


def test_the_default_camera_is_that_of_the_scripts():
    focal = camera_utils.intrinsics_from_focal()
    torch.testing.assert_close(State(yaw=30).camera(focal), camera_utils.orbit_label(math.radians(30), 0.0))


def test_a_camera_at_the_pole_is_moved_beside_it():
    view = states.view_of(np.array([0.0, 2.7, 0.0]), np.zeros(3))
    assert np.isfinite(states.position_of(State(**view))).all()


def test_the_command_line_gives_the_state_back():
    state = State(
        seed=5,
        trunc=0.45,
        mix=(2, 6),
        directions=(0.0, -1.5),
        target=(0.1, 0.0, -0.2),
        background="other",
        image_mode="image_depth",
    )
    found = []
    command = click.command()(states.state_options(lambda **values: found.append(State(**values))))
    words = shlex.split(states.command_line(state, "a b.pkl", "view.png"))
    assert words[:6] == ["python", "visualizer.py", "--network", "a b.pkl", "--out", "view.png"]
    result = CliRunner().invoke(command, words[6:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert found == [state]
