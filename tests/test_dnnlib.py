"""The torch-free helpers: objects by name, atomic files, logs, option types and one-line errors."""

import errno
import os
import pickle
import stat
import sys

import click
import pytest
from click.testing import CliRunner

from dnnlib import EasyDict, UserError, cli, util

# Dictionaries and objects


def test_easy_dict_has_attributes_and_is_a_dictionary():
    d = EasyDict(a=1)
    d.b = 2
    assert d == {"a": 1, "b": 2} and d.a == d["a"] == 1
    del d.a
    with pytest.raises(AttributeError, match="a"):
        _ = d.a
    assert getattr(d, "missing", 5) == 5
    copy = pickle.loads(pickle.dumps(d))
    assert type(copy) is EasyDict and copy == d


def test_objects_by_name():
    assert util.get_obj_by_name("dnnlib.util.EasyDict") is EasyDict
    assert util.get_obj_by_name("os.path.join") is os.path.join
    assert util.construct_class_by_name(class_name="dnnlib.EasyDict", a=1) == {"a": 1}
    assert util.construct_class_by_name("7", class_name="builtins.int", base=8) == 7


def test_names_of_nothing():
    with pytest.raises(ImportError, match="no_such_module.thing"):
        util.get_obj_by_name("no_such_module.thing")
    with pytest.raises(AttributeError, match="no_such_class"):
        util.get_obj_by_name("dnnlib.util.no_such_class")


def test_missing_dependency_of_a_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        util.get_obj_by_name("needs_more.thing")


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (185, "3m 05s"),
        (3600, "1h 00m 00s"),
        (7630, "2h 07m 10s"),
        (102600, "1d 04h 30m"),
    ],
)
def test_format_time(seconds, text):
    assert util.format_time(seconds) == text


# Files


def test_atomic_path_moves_a_finished_file_into_place(tmp_path):
    path = tmp_path / "result.png"
    path.write_text("old")
    with util.atomic_path(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["result.png"]


def test_atomic_path_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "result.zip"
    with pytest.raises(RuntimeError, match="stop"):
        with util.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")
    assert os.listdir(tmp_path) == []


def test_atomic_path_makes_files_that_others_can_read(tmp_path):
    path = tmp_path / "result"
    umask = os.umask(0o022)
    try:
        with util.atomic_path(path) as temporary:
            temporary.write_text("x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_output_folder_is_made_with_its_parents(tmp_path):
    path = util.make_output_dir(tmp_path / "a" / "b")
    assert path.is_dir() and os.listdir(path) == []
    assert util.make_output_dir(path) == path


def test_output_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot write in the folder .*file"):
            util.make_output_dir(path)


def test_a_lock_is_held_by_one_and_given_back(tmp_path):
    path = tmp_path / "lock"
    assert not util.is_locked(path)
    with util.FileLock(path, "taken"):
        assert util.is_locked(path)
        with pytest.raises(UserError, match="taken"):
            util.FileLock(path, "taken")
        assert util.is_locked(path)
    assert path.exists() and not util.is_locked(path)
    with util.FileLock(path, "taken"):
        pass


def test_run_folders_are_numbered_on(tmp_path):
    outdir = tmp_path / "runs"
    assert util.next_run_dir(outdir, "first") == outdir / "00000-first"
    for name in ("00000-first", "00007-other", "notes", "12"):
        (outdir / name).mkdir(parents=True)
    assert util.next_run_dir(outdir, "next") == outdir / "00013-next"
    assert not (outdir / "00013-next").exists()


def test_logger_copies_both_streams_but_no_progress_bars(tmp_path, capsys):
    path = tmp_path / "log.txt"
    path.write_text("before\n")
    streams = sys.stdout, sys.stderr
    with util.Logger(path):
        print("out")
        print("err", file=sys.stderr)
        sys.stderr.write("\r 50%")
        assert sys.stdout.isatty() is False
    assert (sys.stdout, sys.stderr) == streams
    print("after")
    assert path.read_text() == "before\nout\nerr\n"
    captured = capsys.readouterr()
    assert captured.out == "out\nafter\n" and captured.err == "err\n\r 50%"


def test_logger_closes_twice(tmp_path):
    logger = util.Logger(tmp_path / "log.txt")
    logger.close()
    streams = sys.stdout, sys.stderr
    logger.close()
    assert (sys.stdout, sys.stderr) == streams


def test_existing_path(tmp_path):
    assert util.existing_path(str(tmp_path), "data set") == tmp_path
    with pytest.raises(UserError, match="data set not found: .*nothing"):
        util.existing_path(tmp_path / "nothing", "data set")


# Option types


@pytest.mark.parametrize("text, expected", [("3", [3]), ("0-3,7", [0, 1, 2, 3, 7]), (" 2 - 3 , 1", [2, 3, 1]), ("5-5", [5])])
def test_seeds(text, expected):
    assert cli.Seeds().convert(text, None, None) == expected


@pytest.mark.parametrize(
    "text, reason",
    [
        ("3-1", "write 1-3"),
        ("", "not a list"),
        ("1,,2", "not a list"),
        ("-1", "not a list"),
        ("a", "not a list"),
        ("1.5", "not a list"),
    ],
)
def test_bad_seeds(text, reason):
    with pytest.raises(click.BadParameter, match=reason):
        cli.Seeds().convert(text, None, None)


@pytest.mark.parametrize("text, expected", [("4x2", (4, 2)), (" 512 X 512 ", (512, 512))])
def test_pairs(text, expected):
    assert cli.Pair().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["2", "2x", "0x2", "2x0", "-1x2", "2x2x2", "axb"])
def test_bad_pairs(text):
    with pytest.raises(click.BadParameter, match="not of the form GxH"):
        cli.Pair("GxH").convert(text, None, None)


def test_names():
    assert cli.Names().convert("a, b", None, None) == ["a", "b"]
    for text in ("none", "", " None "):
        assert cli.Names(["a"]).convert(text, None, None) == []
    with pytest.raises(click.BadParameter, match="'c' is not available; choose from: none, a, b"):
        cli.Names(["a", "b"]).convert("a,c", None, None)
    with pytest.raises(click.BadParameter, match="choose from: none$"):
        cli.Names([]).convert("fid50k_full", None, None)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "2", "x"])
def test_bad_floats(text):
    with pytest.raises(click.BadParameter):
        cli.FiniteFloat(min=0, max=1).convert(text, None, None)


def test_good_floats():
    assert cli.FiniteFloat(min=0, max=1).convert("0.25", None, None) == 0.25


# Commands


def run(body, *arguments):
    @cli.command()
    @click.option("--some-number", type=int, default=1)
    @click.option("--seeds", type=cli.Seeds(), default="0-1")
    @click.option("--how", type=click.Choice(["center-crop", "none"]), default="none")
    def command(some_number, seeds, how):
        body(some_number, seeds, how)

    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize("option", ["--some-number", "--some_number"])
def test_options_take_underscores_and_dashes(option):
    seen = []
    result = run(lambda *values: seen.append(values), option, "3", "--how", "center-crop")
    assert result.exit_code == 0, result.output
    assert seen == [(3, [0, 1], "center-crop")]


def test_unknown_and_bad_options_exit_with_two():
    for arguments in (["--no-such-option"], ["--some-number", "x"], ["--seeds", "3-1"]):
        result = run(lambda *values: None, *arguments)
        assert result.exit_code == 2 and "Traceback" not in result.output


def fails_with(error):
    def body(*values):
        raise error

    return run(body)


@pytest.mark.parametrize(
    "error, code, text",
    [
        (UserError("the cup is empty; fill it"), 1, "Error: the cup is empty; fill it\n"),
        (PermissionError(errno.EACCES, "Permission denied", "out/x.png"), 1, "Error: out/x.png: Permission denied\n"),
        (KeyboardInterrupt(), 130, "Error: interrupted\n"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 1, f"Error: out of memory: {cli.OUT_OF_MEMORY_ADVICE}\n"),
        (MemoryError(), 1, f"Error: out of memory: {cli.OUT_OF_MEMORY_ADVICE}\n"),
    ],
)
def test_mistakes_are_told_in_one_line(error, code, text):
    result = fails_with(error)
    assert result.exit_code == code
    assert result.stderr == text


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), OSError("no file name")])
def test_bugs_are_not_hidden(error):
    assert fails_with(error).exception is error


def test_defaults_are_shown_in_the_help():
    result = run(lambda *values: None, "--help")
    assert result.exit_code == 0 and "[default: 0-1]" in result.output


def test_progress_passes_everything_through(capsys):
    assert list(cli.progress(range(3), desc="counting")) == [0, 1, 2]
    assert "counting" in capsys.readouterr().err


def test_powers_of_two():
    assert [n for n in range(-2, 20) if util.is_power_of_two(n)] == [1, 2, 4, 8, 16]
