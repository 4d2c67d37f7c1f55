"""The project's own files agree with each other."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).parent.parent


LARGE_EXTRAS = {"heads"}  # gigabytes that using the toolkit does not need


def declared():
    """Name -> requirement of everything that pyproject.toml asks for, with all extras but the large ones."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [texts for name, texts in project["optional-dependencies"].items() if name not in LARGE_EXTRAS]
    texts = sum(extras, project["dependencies"])
    return {requirement.name: requirement for requirement in map(Requirement, texts)}


def pinned():
    """Name -> version in environment.yml."""
    return dict(re.findall(r"^ +- ([a-z-]+)==(\S+)$", (ROOT / "environment.yml").read_text(), re.MULTILINE))


def test_the_conda_environment_holds_what_the_project_asks_for():
    assert set(pinned()) == set(declared())
    for name, version in pinned().items():
        assert declared()[name].specifier.contains(version), name


def test_the_conda_environment_has_the_name_of_the_project():
    name = re.search(r"^name: (\S+)$", (ROOT / "environment.yml").read_text(), re.MULTILINE)[1]
    assert name == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"] == "multi_pose"


def test_torch_is_pinned_the_same_everywhere():
    assert (ROOT / "requirements.txt").read_text().split()[-1] == f"torch=={pinned()['torch']}"


def test_every_mended_or_kept_behaviour_has_a_test_file():
    names = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/conventions.md").read_text()))
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert names and names <= there


def test_files_that_the_readme_names_are_there():
    text = (ROOT / "README.md").read_text()
    for name in set(re.findall(r"python (\w+\.py)", text)) | set(re.findall(r"\]\(([\w./]+)\)", text)):
        assert (ROOT / name).exists(), name


def test_packages_that_are_installed_are_all_there_are():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("data_tools", "dnnlib", "inference", "meshes", "photo", "pti", "torch_utils", "training", "viz")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(setup["packages"]) == found
