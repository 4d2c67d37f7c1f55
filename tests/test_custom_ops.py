"""Building compiled ops, and doing without."""

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from dnnlib import UserError
from torch_utils import custom_ops

ROOT = Path(__file__).parent.parent
LOOK_UP = (
    "import torch; from torch_utils.ops.grid_lookup import grid_lookup;"
    "print(grid_lookup(torch.ones(1, 1, 2, 2, 2, 4), torch.zeros(1, 3, 3), [[0, 1, 2]]).sum().item())"
)


def run(cache, code=LOOK_UP, **environment):
    env = dict(os.environ, OMP_NUM_THREADS="1", TORCH_EXTENSIONS_DIR=str(cache), **environment)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_without_a_compiler_one_warning_and_plain_pytorch(tmp_path):
    process = run(tmp_path, f"{LOOK_UP};{LOOK_UP}", CXX="no-such-compiler")
    output, errors = process.communicate(timeout=120)
    assert output == "12.0\n12.0\n"
    assert errors.count("no compiled ops") == 1 and "no-such-compiler" in errors


def test_required_ops_that_cannot_be_built_are_an_error(tmp_path):
    process = run(tmp_path, CXX="no-such-compiler", TORCH_UTILS_OPS="require")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "no-such-compiler" in errors.splitlines()[-1]


def test_reference_builds_nothing(tmp_path):
    process = run(tmp_path, TORCH_UTILS_OPS="ref")
    assert process.communicate(timeout=120) == ("12.0\n", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_process_builds_and_nothing_else_is_left(tmp_path):
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")
    processes = [run(tmp_path, TORCH_UTILS_OPS="require") for _ in range(2)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [output for output, _ in results] == ["12.0\n"] * 2
    assert sum("Building" in errors for _, errors in results) == 1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".so"]


BUILD_UNTIL_KILLED = """
import pathlib, sys, time
from torch_utils import custom_ops
built = pathlib.Path(sys.argv[1])
with custom_ops._file_lock(built.with_suffix(".lock")), custom_ops._build_folder(built) as folder:
    (folder / "half.o").touch()
    print("building", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_build_left_goes_with_the_next_one_and_running_builds_stay(tmp_path):
    builds = {}
    for name in ("multi_pose_killed.so", "multi_pose_cuda_running.so"):
        arguments = [sys.executable, "-c", BUILD_UNTIL_KILLED, str(tmp_path / name)]
        builds[name] = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        for process in builds.values():
            assert process.stdout.readline() == "building\n"
        builds["multi_pose_killed.so"].kill()
        builds["multi_pose_killed.so"].wait()
        (tmp_path / "somebody_elses.build").mkdir()
        built = tmp_path / "multi_pose_next.so"
        with custom_ops._file_lock(built.with_suffix(".lock")), custom_ops._build_folder(built) as folder:
            found = {path.name for path in tmp_path.glob("*.build")}
            assert found == {folder.name, "multi_pose_cuda_running.build", "somebody_elses.build"}
        assert not folder.exists()
        assert (tmp_path / "multi_pose_cuda_running.build" / "half.o").exists()
    finally:
        for process in builds.values():
            process.kill()
            process.communicate()


def test_a_killed_build_of_the_same_library_is_begun_anew(tmp_path):
    built = tmp_path / "multi_pose_same.so"
    left = built.with_suffix(".build")
    left.mkdir()
    (left / "half.o").touch()
    with custom_ops._file_lock(built.with_suffix(".lock")), custom_ops._build_folder(built) as folder:
        assert folder == left and not list(folder.iterdir())
    assert not left.exists()


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Where the build of the CPU's ops would be, and what was loaded."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(custom_ops, "_fingerprint", lambda *_: "any")
    monkeypatch.setattr(custom_ops, "_for_cpu", lambda _: ({}, ""))
    monkeypatch.setattr(custom_ops, "_SAY_SO_AFTER", 0.1)
    importlib.import_module("torch.utils.cpp_extension")  # takes longer than the test would wait
    loaded = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    return tmp_path / "multi_pose_any.so", loaded


def test_who_waits_for_a_slow_build_loads_it(cached, capfd):
    built, loaded = cached
    with custom_ops._file_lock(built.with_suffix(".lock")):
        waiting = threading.Thread(target=custom_ops._load_or_build, args=[custom_ops.CPU])
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive() and not loaded
        built.touch()
    waiting.join(60)
    assert loaded == [str(built)] and capfd.readouterr().err.count("Waiting for another process") == 1


def test_nobody_waits_for_a_build_without_end(cached, monkeypatch):
    built, loaded = cached
    monkeypatch.setattr(custom_ops, "BUILD_PATIENCE", 0.3)
    with custom_ops._file_lock(built.with_suffix(".lock")), pytest.raises(RuntimeError, match="another process has been"):
        custom_ops._load_or_build(custom_ops.CPU)
    assert not loaded
    built.touch()
    custom_ops._load_or_build(custom_ops.CPU)
    assert loaded


def test_the_switch_is_checked(monkeypatch):
    monkeypatch.setenv(custom_ops.SWITCH, "fast")
    with pytest.raises(UserError, match="auto, ref, require"):
        custom_ops.cpu_ops()


def test_what_ops_take():
    x = torch.zeros(1)
    assert custom_ops.compiled(x.half()) is None
    assert custom_ops.compiled(x.half(), half=True) is None  # CPU ops have no half precision
    assert custom_ops.compiled(x, x.double()) is None
    assert custom_ops.compiled(x, torch.zeros(1, device="meta")) is None


def test_without_nvcc_one_warning_and_plain_pytorch(tmp_path):
    code = "from torch_utils import custom_ops; print(custom_ops.cuda_ops(), custom_ops.cuda_ops())"
    output, errors = run(tmp_path, code, PATH=str(tmp_path), CUDA_HOME="").communicate(timeout=120)
    assert output == "None None\n"
    assert errors.count("no compiled CUDA ops") == 1 and "CUDA_HOME" in errors


def test_the_toolkit_is_found_behind_links_and_scripts(tmp_path, monkeypatch):
    toolkit = tmp_path / "toolkit" / "bin"
    toolkit.mkdir(parents=True)
    compiler, script = toolkit / "nvcc", tmp_path / "nvcc"
    compiler.write_text(f"#!/bin/sh\necho '#$ TOP={toolkit}/..' >&2\n")
    script.write_text(f'#!/bin/sh\nexec {compiler} "$@"\n')
    for path in (compiler, script):
        path.chmod(0o755)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert custom_ops.cuda_home() == toolkit.parent.resolve()
    monkeypatch.setenv("CUDA_HOME", "/elsewhere")
    assert custom_ops.cuda_home() == Path("/elsewhere")


def test_a_build_depends_on_its_own_sources():
    flags = {"extra_cflags": ["-O3"]}
    names = {custom_ops._fingerprint(library, flags, "compiler") for library in (custom_ops.CPU, custom_ops.CUDA)}
    names.add(custom_ops._fingerprint(custom_ops.CUDA, flags, "another compiler"))
    assert len(names) == 3
