"""The header that imitates CUDA finds the errors it exists for: planted ones, in the project's own kernels."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from torch_utils import custom_ops

STAND_IN = Path(__file__).parent / "cuda_on_cpu"
ORDERS = ({}, {"FIBERS_BACKWARDS": "1"})


def errors_found(folder, old="", new=""):
    """Output of the check program, in both orders of threads, after replacing `old` by `new` in all kernels."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        pytest.skip("no C++ compiler")
    texts = {path.name: path.read_text() for path in custom_ops.CUDA.folder.iterdir()}
    assert any(old in text for text in texts.values())
    for name, text in texts.items():
        (folder / name).write_text(text.replace(old, new) if old else text)
    sanitizers = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = ["-I", str(STAND_IN), "-I", str(folder), str(STAND_IN / "check_bias_act.cpp"), "-o", str(folder / "check")]
    build = subprocess.run([compiler, "-std=c++17", *sanitizers, *sources], capture_output=True, text=True)
    if "cannot find" in build.stderr:
        pytest.skip("the compiler has no sanitizers here")
    assert build.returncode == 0, build.stderr
    # Stacks of fibers are none that the sanitizer knows.
    environment = dict(os.environ, ASAN_OPTIONS="detect_stack_use_after_return=0:detect_leaks=0")
    runs = [subprocess.run([folder / "check"], env=environment | o, capture_output=True, text=True) for o in ORDERS]
    return [run.stdout + run.stderr for run in runs if run.returncode]


def test_the_kernels_as_they_are_pass(tmp_path):
    assert errors_found(tmp_path) == []


def test_missing_barriers(tmp_path):
    assert any("bias_act differs" in error for error in errors_found(tmp_path, "__syncthreads();"))


def test_a_barrier_that_not_all_threads_reach(tmp_path):
    found = errors_found(tmp_path, "if (!grad_noise) return;", "if (threadIdx.x == 5) return;")
    assert len(found) == 2 and all("a barrier or an exchange that not all threads reach" in error for error in found)


def test_out_of_bounds(tmp_path):
    found = errors_found(tmp_path, "if (index >= vectors) return;")
    assert len(found) == 2 and all("AddressSanitizer" in error for error in found)


def test_misaligned_reads(tmp_path):
    found = errors_found(tmp_path, "inner % WIDE<T> == 0", "true")
    assert len(found) == 2 and all("AddressSanitizer" in error or "misaligned" in error for error in found)
