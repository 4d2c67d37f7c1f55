"""Which networks a page may open: what was given, what appears in runs, and nothing else."""

import os
import shutil

import pytest

from dnnlib import UserError
from visualizer import SHIPPED
from viz.networks import Library


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "runs" / "00000-ffhq"
    run.mkdir(parents=True)
    (run / "network-snapshot-000009.pkl").symlink_to(SHIPPED)
    return run


def test_names_are_files_and_runs(tmp_path, run):
    shutil.copy(SHIPPED, tmp_path / "own.pkl")
    (tmp_path / "notes.txt").write_text("no network")
    names = Library([str(tmp_path), "https://host/easy.pkl"]).names()
    assert names == [str(run), str(tmp_path / "own.pkl"), "https://host/easy.pkl"]


def test_a_run_is_its_newest_snapshot(run):
    (run / "network-snapshot-000100.pkl").symlink_to(SHIPPED)
    library = Library([str(run)])
    assert library.file(str(run)).endswith("000100.pkl")
    (run / "network-snapshot-001000.pkl").symlink_to(SHIPPED)
    assert library.file(str(run)).endswith("001000.pkl")


def test_a_network_is_loaded_once_while_it_is_looked_at(run):
    shutil.copy(SHIPPED, run / "network-snapshot-000100.pkl")
    library = Library([str(run)], "cpu")
    assert library.get(str(run)) is library.get(str(run))


OUTSIDE = ["{given}/../secret.pkl", "{given}-beside.pkl", "/etc/passwd", "link.pkl", "{given}/link.pkl", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_outside_of_what_was_given_is_refused(tmp_path, name, monkeypatch):
    given = tmp_path / "given"
    given.mkdir()
    for secret in (tmp_path / "secret.pkl", tmp_path / "given-beside.pkl"):
        shutil.copy(SHIPPED, secret)
    (given / "link.pkl").symlink_to(tmp_path / "secret.pkl")
    (tmp_path / "link.pkl").symlink_to(tmp_path / "secret.pkl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not in what was given"):
        Library([str(given)], "cpu").get(name.format(given=given))


@pytest.mark.parametrize("name", ["https://host/x.pkl", "http://host/x.pkl", "file:///etc/passwd", "ftp://host/x.pkl"])
def test_a_page_names_no_url(name):
    with pytest.raises(UserError, match="only networks that were given"):
        Library([str(SHIPPED)], "cpu").get(name)


@pytest.mark.parametrize("name", ["http://host/x.pkl", "file:///etc/passwd"])
def test_or_on_this_machine_none_but_https(name):
    with pytest.raises(UserError, match="only networks that were given"):
        Library([str(SHIPPED)], "cpu", urls=True).get(name)


def test_what_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Library([os.path.join(tmp_path, "none.pkl")])


def test_an_empty_run_and_a_folder_that_is_no_inversion(tmp_path):
    (tmp_path / "training_options.json").write_text("{}")
    library = Library([str(tmp_path)], "cpu")
    with pytest.raises(UserError, match="no snapshot yet"):
        library.get(str(tmp_path))
    (tmp_path / "inside").mkdir()
    with pytest.raises(UserError, match="as pti/run.py writes"):
        library.get(str(tmp_path / "inside"))
