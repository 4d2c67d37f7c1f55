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


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / "dataset/README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_and_links_of_a_page_exist(page):
    text = page.read_text()
    for name in re.findall(r"python ([\w/]+\.py)", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / name).exists(), name


def test_the_readme_links_to_every_page():
    links = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    assert links == {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}


def test_modules_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", text):
        assert (ROOT / name).exists(), name


def test_the_example_of_a_representation_renders_a_ball():
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## How to add a representation")[2]
    names = {}
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], names)
    assert names["mask"][32, 32] > 0.99 and names["mask"][0, 0] < 0.01


def test_packages_that_are_installed_are_all_there_are():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("data_tools", "dnnlib", "inference", "meshes", "photo", "pti", "torch_utils", "training", "viz")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(setup["packages"]) == found
