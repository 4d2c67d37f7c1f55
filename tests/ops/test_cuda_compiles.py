"""The CUDA sources as nvcc sees them; no GPU is needed."""

import subprocess

import pytest

from torch_utils import custom_ops

TARGETS = ("arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90")


@pytest.mark.slow
def test_all_kernels_compile_and_keep_to_their_registers(tmp_path):
    home = custom_ops.cuda_home()
    if home is None:
        pytest.skip("no nvcc")
    command = [
        home / "bin" / "nvcc",
        "-std=c++17",
        "-O3",
        "-c",
        custom_ops.CUDA.folder / "kernels.cu",
        "-o",
        tmp_path / "kernels.o",
    ]
    command += [f"-gencode={target}" for target in TARGETS] + ["-Xptxas", "-v,-warn-spills"]
    build = subprocess.run(command, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    lines = (build.stdout + build.stderr).splitlines()
    frames = [line.strip() for line in lines if "stack frame" in line]
    assert len(frames) > 100  # kernels, for each of two targets
    assert {*frames} == {"0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"}
    assert not [line for line in lines if "warning" in line]
