"""The doctor: what it finds, what it advises, and when its exit code says that something is wrong."""

import pytest
import torch
from click.testing import CliRunner

from torch_utils import custom_ops, doctor
from torch_utils.ops import examples


def run():
    result = CliRunner().invoke(doctor.main, [])
    return result.exit_code, result.output


def cannot_be_built(*tensors):
    if custom_ops.mode() == "require":
        raise RuntimeError("the compiled ops that are asked for cannot be built: [Errno 2] No such file: 'c++'")


def test_names_what_there_is():
    facts = doctor.machine()
    assert torch.__version__ in facts["PyTorch"] and "threads" in facts["CPU"] and "GiB free" in facts["cache folder"]


def test_all_is_well_here(monkeypatch):
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")
    monkeypatch.setenv(custom_ops.SWITCH, "require")
    code, output = run()
    assert code == 0 and "FAILED" not in output
    assert all(f"cpu: {name}, float32" in output for name in examples.EXAMPLES)


@pytest.mark.parametrize(("mode", "code"), [("auto", 0), ("require", 1)])
def test_without_a_compiler_it_says_what_to_install(monkeypatch, mode, code):
    monkeypatch.setenv(custom_ops.SWITCH, mode)
    monkeypatch.setattr(custom_ops, "compiled", cannot_be_built)
    found, output = run()
    assert found == code and "FAILED: [Errno 2]" in output and "apt install g++" in output


def test_a_wrong_op_is_always_a_failure(monkeypatch):
    if custom_ops.cpu_ops() is None:
        pytest.skip("no compiled ops here")
    monkeypatch.setattr(examples, "largest_difference", lambda *_: 0.1)
    code, output = run()
    assert code == 1 and "differs from plain PyTorch by 1.0e-01" in output and "TORCH_UTILS_OPS=ref" in output


def test_where_plain_pytorch_is_asked_for_nothing_is_built(monkeypatch):
    monkeypatch.setenv(custom_ops.SWITCH, "ref")
    monkeypatch.setattr(doctor, "check_device", None)
    code, output = run()
    assert code == 0 and "nothing is built" in output


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("[Errno 2] No such file or directory: 'c++'", "CXX"),
        ("Ninja is required to load C++ extensions", "pip install ninja"),
        ("fatal error: omp.h: No such file or directory", "OpenMP"),
        ("[Errno 13] Permission denied: '/cache/multi_pose.lock'", "TORCH_EXTENSIONS_DIR"),
        ("error: #error You need C++20 to compile PyTorch", "newer compiler"),
        ("nvcc fatal: Unsupported gpu architecture", "CUDA toolkit"),
        ("something else", "delete the files"),
    ],
)
def test_the_fix_suits_the_reason(reason, advice):
    assert advice in doctor.fix_of(reason)


def test_a_cache_folder_that_cannot_be_made_is_named(monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/proc/nothing")
    assert "cannot be written to" in doctor.machine()["cache folder"]
    assert "TORCH_EXTENSIONS_DIR" in doctor.fix_of("[Errno 2] No such file or directory: '/proc/nothing'")
