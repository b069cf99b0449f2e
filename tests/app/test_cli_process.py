"""cli: the process as a shell sees it: help, completion, closed and full streams, an early Ctrl-C, no home folder."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from colorizer import config
from colorizer.pixels.images import encode_png

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "colorizer"]
SETTINGS = [(kind, name) for kind in (config.ModelConfig, config.TrainConfig) for name in kind.model_fields]
ONE_QUICKLY = ["models --json", *(pytest.param(words, marks=pytest.mark.slow) for words in ("models", "--help"))]
HELP_OF_COMMANDS = ["data", "models", "train", "sweep", "evaluate", "colorize", "report", "app"]


def shell(line, **changes):
    """Run a line of shell with `colorizer` in place of the command; return the exit code, stdout and stderr."""
    line = line.replace("colorizer ", f"'{sys.executable}' -m colorizer ", 1)
    environment = {key: value for key, value in (os.environ | changes).items() if value is not None}
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=120, env=environment)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture
def picture(tmp_path, samples):
    path = tmp_path / "photo.png"
    path.write_bytes(encode_png(samples.images[0]))
    return path


@pytest.fixture(scope="module")
def train_help():
    done = subprocess.run([*COMMAND, "train", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(("kind", "name"), SETTINGS, ids=[name for _, name in SETTINGS])
def test_help_has_each_setting_with_its_choices_range_default_and_sentence(train_help, kind, name):
    entry = re.search(rf" --{name.replace('_', '-')} (.*?\[default: .*?\])", train_help).group(1)
    assert kind.model_fields[name].description in entry
    if kind.choices(name):
        assert "|".join(kind.choices(name)) in entry
    elif kind.limits(name):
        assert "{} to {}".format(*kind.limits(name)) in entry


def test_help_says_how_to_install_the_completion_and_names_all_commands(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "Run `colorizer --install-completion` once" in " ".join(out.split())
    assert all(f"\n  {command} " in out for command in HELP_OF_COMMANDS)
    assert "..." not in out.split("Commands:")[1]


@pytest.mark.parametrize("command", HELP_OF_COMMANDS)
def test_every_command_has_its_help(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert re.match(rf"Usage: (python -m )?colorizer {command} \[OPTIONS\]", out)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("colorizer tr", "train"),
        ("colorizer train --lat", "--latent-dim"),
        pytest.param("colorizer train --preset unet-v", "unet-vivid", marks=pytest.mark.slow),
        pytest.param("colorizer train --architecture u", "unet", marks=pytest.mark.slow),
        pytest.param("colorizer evaluate unet-v", "unet-vivid", marks=pytest.mark.slow),
    ],
)
def test_the_shell_completes_commands_options_choices_and_models(words, completed):
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_COLORIZER_COMPLETE": "complete_bash"}
    _, out, _ = shell("colorizer ", **environment)
    assert completed in out.decode().split()


def test_latent_dims_takes_its_value_or_none(run):
    for words in (["--latent-dims", "--epochs", "0"], ["--epochs", "0", "--latent-dims"]):
        code, _, err = run("sweep", *words)
        assert (code, err) == (
            1,
            "error: dense is not trained: it has 0 epochs. Choose another preset, or set --epochs.\n",
        )
    assert "latent_dim must be a whole number from 1 to 512" in run("sweep", "--latent-dims", "8,9999")[2]
    assert run("sweep", "--latent-dims", "8,x")[0] == 2


@pytest.mark.parametrize("words", ONE_QUICKLY)
def test_a_closed_stdout_is_said_on_stderr(words):
    code, _, err = shell(f"colorizer {words} >&-")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: Standard output is closed")


@pytest.mark.slow
def test_a_closed_stderr_takes_nothing_from_the_result(picture, tmp_path):
    code, out, _ = shell(f"colorizer colorize linear {picture} --output {tmp_path / 'out'} 2>&-")
    assert (code, out.decode()) == (0, f"{tmp_path / 'out' / 'photo.png'}\n")
    assert (tmp_path / "out" / "photo.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = shell("colorizer report nope --output out --json 2>&-")
    assert code == 1
    assert json.loads(out)["error"].startswith("There is no model 'nope'.")
    assert shell("colorizer models >&- 2>&-")[0] == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", ONE_QUICKLY)
def test_a_full_disk_behind_stdout_is_one_sentence(words):
    code, _, err = shell(f"colorizer {words} > /dev/full")
    assert (code, err.count("\n")) == (1, 1)
    assert "No space left on device" in err


def test_a_reader_that_leaves_early_is_no_error():
    code, out, err = shell("set -o pipefail; colorizer models --json | head -1; exit ${PIPESTATUS[1]}")
    assert (code, out, err) == (0, b"{\n", "")


@pytest.mark.slow
def test_file_names_are_printed_whatever_stdout_can_encode(picture, tmp_path):
    for name in ("für €.png", os.fsdecode(b"\xff.png")):
        picture = picture.rename(tmp_path / name)
        words = ["colorize", "linear", picture, "--output", tmp_path / "out"]
        ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
        done = subprocess.run([*COMMAND, *words], capture_output=True, timeout=60, env=ascii_only)
        assert (done.returncode, done.stdout) == (0, os.fsencode(tmp_path / "out" / name) + b"\n"), done.stderr
        done = subprocess.run([*COMMAND, *words, "--json"], capture_output=True, timeout=60, env=ascii_only)
        assert json.loads(done.stdout)["skipped"] == [str(tmp_path / "out" / name)]


def test_words_that_are_no_text_get_a_sentence():
    done = subprocess.run([*COMMAND, "evaluate", b"\xff\xfe"], capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: There is no model ")


@pytest.mark.parametrize(
    "module",
    [
        "typing",
        "colorizer.models.library",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("pathlib", "numpy._core.multiarray")),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_ctrl_c_during_the_imports_says_stopped(module, flags):
    command = [sys.executable, "-X", "importtime", "-m", "colorizer", "models", *flags]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell, as tests may be, has SIGINT ignored, and so have its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stderr:
            if line.split("|")[-1].strip() == module:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (1, False)
    assert err.endswith("stopped\n")
    assert out == ("" if not flags else '{"error": "stopped"}\n')


def test_a_user_without_a_home_folder_is_told_to_name_one(home):
    # The system knows no user of this number, and HOME is not set.
    start = "import os, runpy; os.getuid = lambda: 54321; runpy.run_module('colorizer', run_name='__main__')"
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "COLORIZER_HOME")}
    for changes, code in (({}, 1), ({"COLORIZER_HOME": str(home)}, 0)):
        command = [sys.executable, "-c", start, "models"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment | changes)
        sentence = "error: This user has no home folder. Set COLORIZER_HOME to a folder for models and runs.\n"
        assert (done.returncode, done.stderr) == (code, sentence if code else "")


def test_the_app_starts_for_a_user_whom_the_system_does_not_know(home):
    # Streamlit looks for its settings in the user's home folder. The program prints what it would hand over to.
    start = "import os, runpy, sys; os.getuid = lambda: 54321;"
    start += "os.execv = lambda *_: sys.exit(print(os.environ['HOME']));"
    start += "runpy.run_module('colorizer', run_name='__main__')"
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    command = [sys.executable, "-c", start, "app"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.splitlines()[:1] == [str(home)], done.stderr


@pytest.mark.slow
def test_app_starts_from_any_folder_with_the_options_that_are_passed_on(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--server.headless", "true", f"--server.port={port}"]
    with subprocess.Popen(
        [*COMMAND, "app", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        end, status = time.monotonic() + 120, None
        while status is None and process.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
                    status = answer.status
            except OSError:
                pass
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert status == 200, err
