"""What the repository says about itself in several places agrees."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import cifarzoo

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# a source archive has no workflows, and no history
in_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")


def read_yaml(path: str | Path) -> Any:
    """The content of a file of the repository."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    """Every step of every job."""
    return [step for job in read_yaml(workflow)["jobs"].values() for step in job["steps"]]


def make_targets() -> set[str]:
    """What can be made."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE))


def made_in(command: str) -> list[str]:
    """The targets of a command that runs make, or only make."""
    program, *words = command.split()
    assert program == "make", command
    return [word for word in words if "=" not in word and not word.startswith("-")]


def needed_targets(script: str) -> set[str]:
    """What a script makes, always or where a tool is there; its indented lines prepare that."""
    commands = re.findall(r"^(?:if .*; then )?(make [^;\n]+)", script, re.MULTILINE)
    return {target for command in commands for target in made_in(command)}


def supported_pythons() -> list[str]:
    """Those that pyproject.toml names, from the oldest."""
    classifiers = "\n".join(PROJECT["classifiers"])
    return re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)


def floors() -> dict[str, str]:
    """The oldest version that we need of each package."""
    return dict(each.partition(";")[0].split(">=") for each in PROJECT["dependencies"])


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """tools/check_release.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return importlib.import_module("check_release")


def test_the_citation_names_this_version() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["version"] == cifarzoo.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["url"] == PROJECT["urls"]["Documentation"]


def test_every_page_names_the_same_repository() -> None:
    address = PROJECT["urls"]["Repository"]
    found = {
        match
        for path in [*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.yml"), *ROOT.glob("docs/**/*.md")]
        for match in re.findall(
            r"https://github\.com/[\w-]+/cifarzoo", path.read_text(encoding="utf-8")
        )
    }
    assert found == {address}


@in_checkout
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_make_runs(path: Path) -> None:
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert all(set(made_in(command)) <= make_targets() for command in commands)


@in_checkout
def test_workflows_run_all_that_a_change_must_pass() -> None:
    commands = [step["run"] for path in WORKFLOWS for step in steps(path) if "run" in step]
    needed = needed_targets((ROOT / ".ci/run").read_text(encoding="utf-8"))
    assert {"check", "docs"} < needed <= make_targets()
    assert needed <= {target for command in commands for target in made_in(command)}


def test_targets_are_found_with_hyphens_beside_variables_and_behind_conditions() -> None:
    script = """
# make a remark
    make --no-print-directory environment
make --no-print-directory test-all COVERAGE=
make check docs
if command -v npm >/dev/null; then make --no-print-directory workflows; fi
"""
    assert needed_targets(script) == {"test-all", "check", "docs", "workflows"}


@in_checkout
def test_every_action_is_pinned_by_one_commit_and_says_its_version() -> None:
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "uses:" in line:
                match = re.fullmatch(r"\s*- uses: ([\w/-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
                assert match, f"{path.name}: {line.strip()}"
                pins.setdefault(match[1], set()).add(match[2])
    assert "actions/checkout" in pins
    assert all(len(versions) == 1 for versions in pins.values())


@in_checkout
def test_workflows_may_read_and_only_publishing_may_more() -> None:
    allowed = {}
    for path in WORKFLOWS:
        workflow = read_yaml(path)
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            allowed[path.stem, name] = job.get("permissions")
    assert {key: value for key, value in allowed.items() if value} == {
        ("release", "publish"): {"id-token": "write"},
        ("weights", "publish"): {"id-token": "write"},
    }


@in_checkout
def test_every_supported_python_is_tested_on_linux_and_both_ends_everywhere() -> None:
    stated = supported_pythons()
    assert PROJECT["requires-python"] == f">={stated[0]}"
    matrix = read_yaml(".github/workflows/tests.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == [stated[0], stated[-1]]
    assert {each.partition("-")[0] for each in matrix["os"]} == {"ubuntu", "macos", "windows"}
    more = [each["python"] for each in matrix["include"] if not each["constraints"]]
    assert {*matrix["python"], *more} == {*stated}
    lowest = [each["constraints"] for each in matrix["include"] if each["constraints"]]
    assert lowest == [".github/lowest.txt"]


def test_the_page_about_versions_states_the_same_limits() -> None:
    page = (ROOT / "docs/explanation/versions.md").read_text(encoding="utf-8")
    pythons = supported_pythons()
    assert f"| Python | {pythons[0]} | {pythons[-1]} |" in page
    for name in ("torch", "torchvision"):
        assert f"| {name} | {floors()[name]} |" in page


@in_checkout
def test_the_oldest_versions_that_are_tested_are_those_we_say_we_need() -> None:
    text = (ROOT / ".github/lowest.txt").read_text(encoding="utf-8")
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.MULTILINE))
    assert tested.keys() == floors().keys()
    for name, floor in floors().items():
        assert tested[name] in (floor, f"{floor}.0"), name


@pytest.fixture
def small_repository(tmp_path: Path) -> Path:
    """What a release is checked by: ready to be released as v1.2.0."""
    (tmp_path / "src/cifarzoo").mkdir(parents=True)
    (tmp_path / "src/cifarzoo/version.py").write_text('__version__ = "1.2.0"\n')
    changes = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2027-01-31\n\n### Added\n\n- More.\n"
    (tmp_path / "CHANGELOG.md").write_text(changes)
    (tmp_path / "CITATION.cff").write_text("version: 1.2.0\ndate-released: 2027-01-31\n")
    return tmp_path


def test_a_release_that_is_ready_has_no_faults(release: ModuleType, small_repository: Path) -> None:
    assert release.faults("v1.2.0", small_repository) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("src/cifarzoo/version.py", "1.2.0", "1.3.0", "the tag must be v1.3.0"),
        ("CHANGELOG.md", " - 2027-01-31", "", "needs a heading '## [1.2.0] - YYYY-MM-DD'"),
        ("CHANGELOG.md", "ed]\n", "ed]\n\n- Another.\n", "still lists changes under Unreleased"),
        ("CITATION.cff", "version: 1.2.0", "version: 1.1.0", "must say 'version: 1.2.0'"),
        ("CITATION.cff", "-31", "-30", "must say 'date-released: 2027-01-31'"),
    ],
)
def test_a_release_that_is_not_ready_is_told_what_to_mend(
    release: ModuleType, small_repository: Path, file: str, old: str, new: str, fault: str
) -> None:
    path = small_repository / file
    path.write_text(path.read_text().replace(old, new))
    assert fault in "\n".join(release.faults("v1.2.0", small_repository))


LISTED = (
    *("src", "tests", "docs", "examples", "benchmarks", "research", "tools"),
    *("CHANGELOG.md", "CITATION.cff", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"),
    *(".gitignore", "LICENSE", "Makefile", "README.md", "hubconf.py", "pyproject.toml"),
)
"""What a source archive holds: folders, then files."""

KINDS = {".c", ".css", ".h", ".html", ".json", ".py", ".safetensors", ".toml", ".typed", ".webp"}
"""Of the files in a wheel."""


def tracked() -> list[str]:
    """Files that are committed, or will be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def copy_checkout(folder: Path) -> Path:
    """A copy of this checkout, with what builds leave behind; large files are cut short."""
    for name in tracked():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with (ROOT / name).open("rb") as file:
            target.write_bytes(file.read(300_000))
    for name in ("src/cifarzoo/__pycache__/a.pyc", "docs/_build/a.html", "build/a", "runs/a"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def build(target: str, checkout: Path) -> Path:
    """Build the "wheel" or the "sdist" of a checkout."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "-d", "made"]
    subprocess.run(command, cwd=checkout, capture_output=True, check=True)
    (made,) = (checkout / "made").iterdir()
    return made


@pytest.fixture(autouse=True, scope="module")
def date_of_build() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1800000000")
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The "wheel" and the "sdist" of a copy."""
    pytest.importorskip("hatchling")
    return {
        target: build(target, copy_checkout(tmp_path_factory.mktemp(target)))
        for target in ("wheel", "sdist")
    }


@in_checkout
def test_a_wheel_holds_the_package_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        names = set(archive.namelist())
    package = {name.removeprefix("src/") for name in tracked() if name.startswith("src/")}
    info = f"cifarzoo-{cifarzoo.__version__}.dist-info"
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert names == package | {f"{info}/{name}" for name in about}
    assert {Path(name).suffix for name in package} == KINDS


@in_checkout
@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_what_is_built_again_has_the_same_bytes(
    target: str, built: dict[str, Path], tmp_path: Path
) -> None:
    again = build(target, copy_checkout(tmp_path))
    assert again.read_bytes() == built[target].read_bytes()


@in_checkout
def test_what_is_built_has_the_date_that_was_asked_for(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as archive:
        assert {each.date_time[0] for each in archive.infolist()} == {2027}
    with tarfile.open(built["sdist"]) as archive:
        assert {each.mtime for each in archive.getmembers()} == {1_800_000_000}


@in_checkout
@pytest.mark.parametrize("pack", sorted(path.name for path in (ROOT / "packs").glob("*")))
def test_a_pack_holds_weights_an_index_and_no_code(pack: str, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    copy = copy_checkout(tmp_path / "first")
    made = build("wheel", copy / "packs" / pack)
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
        module = pack.replace("-", "_")
        code = archive.read(f"{module}/__init__.py").decode()
        entries = archive.read(f"{module}-{made.name.split('-')[1]}.dist-info/entry_points.txt")
    folder = f"packs/{pack}/src/"
    package = {name.removeprefix(folder) for name in tracked() if name.startswith(folder)}
    assert package == {name for name in names if ".dist-info/" not in name}
    assert f"= {module}" in entries.decode()
    assert code.count('"""') == 2
    assert code.strip().endswith('"""')  # a docstring alone
    again = build("wheel", copy_checkout(tmp_path / "second") / "packs" / pack)
    assert again.read_bytes() == made.read_bytes()


@in_checkout
def test_a_source_archive_holds_what_tests_and_documentation_need(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    heavy = re.compile(r"benchmarks/results/zoo/.*\.safetensors")
    wanted = {n for n in tracked() if n.partition("/")[0] in LISTED and not heavy.fullmatch(n)}
    assert names == wanted | {"PKG-INFO"}
