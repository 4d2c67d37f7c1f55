"""Photos that become heads: what a page may send, what it is told, and that it can be stopped."""

import os
import time

import pytest
from browser import until
from helpers import children

from dnnlib import UserError
from viz import inversions
from viz.jobs import Job


@pytest.mark.parametrize(
    "name, content",
    [("x.exe", b"1"), ("photo", b"1"), ("photo.png", b""), ("photo.png.sh", b"1"), ("photo.svg", b"1")],
)
def test_what_is_no_photo_is_refused(name, content, tmp_path):
    with pytest.raises(UserError):
        inversions.save_photo(name, content, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, stored",
    [
        ("me.JPG", "00000-me/me.jpg"),
        ("../../etc/passwd.png", "00000-passwd/passwd.png"),
        ("C:\\pictures\\a b;rm -rf.png", "00000-a-b-rm-rf/a-b-rm-rf.png"),
        ("--network.png", "00000-network/network.png"),
        ("\u0430\u0431.png", "00000-photo/photo.png"),
    ],
)
def test_a_photo_is_stored_under_a_plain_name_inside_the_outputs(name, stored, tmp_path):
    photo = inversions.save_photo(name, b"data", tmp_path)
    assert photo == tmp_path / stored and photo.read_bytes() == b"data"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Puts a script in the place of gen_pti_script.sh."""

    def put(text):
        file = tmp_path / "stand-in.sh"
        file.write_text(text)
        monkeypatch.setattr(inversions, "SCRIPT", file)
        photo = tmp_path / "photo" / "me.png"
        photo.parent.mkdir()
        photo.write_bytes(b"data")
        return photo

    return put


def run(photo):
    """The job's shares, its folder, and why it ended."""
    shares, found, ends = [], [], []

    def work(job):
        found.append(inversions.invert(photo, "net.pkl", job, 3, 4, False, "cpu"))

    return Job(work, shares.append, ends.append), shares, found, ends


DONE = """
set -eu
while [ $# -gt 0 ]; do
  case $1 in --outdir) out=$2 ;; --num-steps) [ $2 = 3 ] ;; --num-steps-pti) [ $2 = 4 ] ;; esac
  shift
done
printf 'projection:  50%%|##\\rprojection: 100%%|####\\ntuning:  50%%|##\\r'
mkdir -p $out/net/me
touch $out/net/me/projected_w.npz $out/net/me/finetuned_generator.pkl
"""


def test_bars_are_progress_and_the_folder_is_found(script):
    photo = script(DONE)
    job, shares, found, ends = run(photo)
    job.wait()
    assert ends == [None] and found == [photo.parent / "net" / "me"]
    assert shares == sorted(shares) and {0.275, 0.5, 0.775} <= {round(share, 3) for share in shares}


def test_the_scripts_own_words_say_what_failed(script):
    job, _, found, ends = run(script("echo 'projection:  50%|##'; echo 'Error: no face was found' >&2; exit 1"))
    job.wait()
    assert ends == ["no face was found"] and not found


def test_stopping_ends_the_script_and_what_it_has_started(script):
    job, _, _, ends = run(script("sleep 300 & sleep 300; wait"))
    mine = until(lambda: [pid for pid, line in children(os.getpid()).items() if "stand-in.sh" in line])[0]
    below = until(lambda: list(children(mine)) if len(children(mine)) == 2 else None)
    job.cancel()
    job.wait()
    assert ends == ["cancelled"]
    until(lambda: not any(_lives(pid) for pid in (mine, *below)), 5)


def test_a_script_that_does_not_listen_is_killed(script, monkeypatch):
    monkeypatch.setattr(inversions, "GRACE_SECONDS", 0.3)
    job, _, _, ends = run(script("trap '' TERM; while :; do sleep 0.1; done"))
    until(lambda: [line for line in children(os.getpid()).values() if "stand-in.sh" in line])
    time.sleep(0.3)
    job.cancel()
    job.wait()
    assert ends == ["cancelled"]


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
