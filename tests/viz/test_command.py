"""visualizer.py from its command line: what it prints, serves and refuses."""

import builtins
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from click.testing import CliRunner

import visualizer
from dnnlib import UserError
from viz.page import framed, free_port


@pytest.mark.slow
def test_it_says_where_it_serves_and_ends_when_told(tmp_path):
    pytest.importorskip("viser")
    words = [sys.executable, "visualizer.py", "--port", "0", "--device", "cpu", "--outdir", str(tmp_path / "out")]
    with subprocess.Popen(words, cwd=visualizer.SHIPPED.parents[1], stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        address = re.fullmatch(r"Viewer: (http://127\.0\.0\.1:\d+)\n", line)[1]
        assert b"<html" in urllib.request.urlopen(address, timeout=60).read()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "" and process.returncode == 0
    assert not list(tmp_path.iterdir())  # nothing was kept


def test_without_viser_it_says_what_to_install(monkeypatch):
    find = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "viser":
            raise ImportError(name)
        return find(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    result = CliRunner().invoke(visualizer.main, ["--device", "cpu"])
    assert result.exit_code == 1 and 'pip install -e ".[viewer]"' in result.output


@pytest.mark.parametrize("words, text", [(["--network", "none.pkl"], "no such file"), (["--port", "70000"], "70000")])
def test_mistakes_are_one_line(words, text):
    result = CliRunner().invoke(visualizer.main, words)
    assert result.exit_code != 0 and text in result.output and "Traceback" not in result.output


def test_a_folder_without_networks_is_refused(tmp_path):
    result = CliRunner().invoke(visualizer.main, ["--network", str(tmp_path)])
    assert result.exit_code == 1 and "no network in it" in result.output


def test_a_free_port_is_the_first_that_nobody_listens_on():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port("127.0.0.1", port) <= port + 20
    assert free_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.1"])
def test_a_host_that_is_not_this_machine_is_refused(host):
    with pytest.raises(UserError, match="--(host|port)"):
        free_port(host, 8080)


@pytest.mark.parametrize(
    "size, shape, corner",
    [((300, 100), (50, 150), (0, 50)), ((100, 300), (150, 50), (0, 0)), ((40, 40), (40, 40), (0, 0)), ((1, 1), (1, 1), (0, 0))],
)
def test_the_square_is_in_the_middle_or_on_top(size, shape, corner):
    canvas = framed(np.full([8, 8, 3], 200, np.uint8), size, 50, (0, 10, 20))
    assert canvas.shape == (*shape, 3)
    side = min(shape)
    inside = np.zeros(shape, bool)
    inside[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = True
    assert (canvas[inside] == 200).all() and (canvas[~inside] == (0, 10, 20)).all()


def test_what_is_transparent_shows_the_page():
    pixels = np.full([8, 8, 4], 200, np.uint8)
    pixels[..., 3] = 0
    assert (framed(pixels, (16, 16), 16, (1, 2, 3)) == (1, 2, 3)).all()
