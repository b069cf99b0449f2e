"""The project can be installed: a wheel gives the library, the command and the app in any folder."""

import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import colorizer
from tests.browser.conftest import settle, wait_until_healthy

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "*cache*", "*.egg-info", "build", "dist", "tests", "docs", "output")


def _requirements(file):
    """Return the requirements of a file, those of the files that it includes among them, without comments."""
    lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    included = [name for line in lines if line.startswith("-r ") for name in _requirements(line[3:])]
    return sorted([*included, *(line for line in lines if line and not line.startswith("-r "))])


def test_every_folder_with_code_is_part_of_the_wheel():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "colorizer").rglob("*.py")}
    packages = set(PROJECT["tool"]["setuptools"]["packages"])
    assert packages == {".".join(folder.parts) for folder in folders} | {"colorizer.assets", "colorizer.streamlit"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Path of a wheel that pip builds from a copy of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "project", ignore=LEFT_OUT)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run([*command, "--wheel-dir", folder, folder / "project"], capture_output=True, text=True)
    assert not built.returncode, built.stderr
    shutil.rmtree(folder / "project")
    yield next(folder.glob("*.whl"))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of a fresh environment in which the wheel is installed; it borrows all other packages from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    places = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=places))
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    packages.joinpath("borrowed.pth").write_text("\n".join(sorted(borrowed)))
    command = [sys.executable, "-m", "pip", "--python", _program(folder, "python"), "install", "--quiet"]
    done = subprocess.run([*command, "--no-deps", "--no-index", wheel], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def run_installed(installed, tmp_path):
    """A function that runs a program of that environment in an empty folder, and returns its standard output."""

    def run_installed(name, *words):
        command = [_program(installed, name), *map(str, words)]
        done = subprocess.run(
            command, cwd=_elsewhere(tmp_path), env=_environment(), capture_output=True, text=True, timeout=300
        )
        assert not done.returncode, done.stderr
        return done.stdout

    return run_installed


def _program(environment, name):
    return str(environment / ("Scripts" if os.name == "nt" else "bin") / name)


def _elsewhere(folder):
    folder = folder / "elsewhere"
    folder.mkdir(exist_ok=True)
    return folder


def _environment():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.slow
def test_the_wheel_names_its_version_and_requirements(wheel):
    (about,) = importlib.metadata.MetadataPathFinder.find_distributions(
        importlib.metadata.DistributionFinder.Context(path=[str(wheel)])
    )
    needed = {"": [], "cluster": [], "dev": []}
    for line in about.requires:
        requirement, _, marker = line.partition("; extra == ")
        needed[marker.strip("\"'")].append(_normal(requirement))
    assert about.version == colorizer.__version__
    assert about.metadata["Requires-Python"] == "<3.14,>=3.11"
    assert sorted(needed[""]) == [_normal(line) for line in _requirements("requirements.txt")]
    assert sorted(needed["cluster"]) == [_normal(line) for line in _requirements("requirements-cluster.txt")]
    everything = sorted(needed[""] + needed["dev"])
    assert everything == sorted(_normal(line) for line in _requirements("requirements-dev.txt"))


def _normal(requirement):
    """Return a requirement with its bounds in a fixed order, as `ray[tune]<3,>=2.60`."""
    name, bounds = re.fullmatch(r"([\w.\[\]-]+)(.*)", requirement).groups()
    return name + ",".join(sorted(bounds.split(",")))


@pytest.mark.slow
def test_the_installed_library_is_not_the_checkout(run_installed, installed):
    code = "import colorizer, colorizer.config as c; print(colorizer.__file__, c.ASSETS, sep='\\n')"
    places = [Path(line) for line in run_installed("python", "-c", code).splitlines()]
    assert all(place.is_relative_to(installed.resolve()) for place in places)
    assert (places[1] / "models" / "unet" / "model.keras").is_file()


@pytest.mark.slow
def test_the_installed_command_colours_a_picture(run_installed, tmp_path):
    picture = np.linspace(0, 255, 48 * 40, dtype=np.uint8).reshape(40, 48)
    Image.fromarray(picture).save(_elsewhere(tmp_path) / "photo.png")
    result = json.loads(run_installed("colorizer", "colorize", "unet", "photo.png", "--output", "out", "--json"))
    assert result["failed"] == []
    with Image.open(_elsewhere(tmp_path) / "out" / "photo.png") as image:
        colours = np.asarray(image.convert("RGB")).astype(int)
    assert colours.shape == (40, 48, 3)
    assert np.ptp(colours, axis=-1).max() > 0


@pytest.fixture(scope="module")
def address(installed, tmp_path_factory):
    """Address of the app, started from an empty folder by the installed command."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["app", f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    environment = {**_environment(), "COLORIZER_HOME": str(folder / "home")}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [_program(installed, "colorizer"), *words], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/_stcore/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_the_installed_app_answers(address):
    with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10) as answer:
        assert answer.read() == b"ok"


@pytest.mark.slow
def test_the_installed_app_has_its_theme_its_pages_and_its_models(address, browser):
    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]["light"]
    channels = [int(theme["backgroundColor"][place : place + 2], 16) for place in (1, 3, 5)]
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{address}/gallery")
    settle(page)
    colour = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert colour == f"rgb({', '.join(map(str, channels))})"
    assert page.get_by_role("link", name="How it works").count()
    assert page.locator("[data-testid=stMain] img").count() >= 10
    assert not page.locator("[data-testid=stException]").count()
    page.close()
