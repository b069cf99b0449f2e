"""The train command checks photos and weights of a backbone before TensorFlow is imported, and repeats their paths."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from colorizer.app import cli
from colorizer.config import TrainConfig, TrainingSpec
from colorizer.errors import ColorizerError, ConfigError
from colorizer.models import library
from colorizer.training import job
from tests.training.checks import SMALL_BACKBONE, draw_photos
from tests.training.torch_files import draw_weights, write_arrays

TRAIN = ["train", "--preset", "colorist", "--dataset", "synthetic", "--name", "mine"]
REFUSALS = {
    "no photos": ([], "A backbone learns from photos. Name a folder or a zip with --photos."),
    "no photos but weights": (["--backbone", "weights.pth"], "A backbone learns from photos. Name a folder or a zip"),
    "missing photos": (["--photos", "nope"], "There is no folder or zip "),
    "photos that are text": (["--photos", "text"], "cannot be read as a zip"),
    "photos without colour": (
        ["--photos", "gray"],
        "has no photo that can be used, of 1 files, such as '1.png' (it is gray).",
    ),
    "few photos": (["--photos", "few"], "About 1 in 40 photos is for validation, and of 1 it is 0. Give more photos."),
    "an empty path": (["--photos", ""], "A path is empty"),
    "an empty backbone": (["--photos", "few", "--backbone", ""], "A path is empty"),
    "an unknown user": (["--photos", "~no-such-user/x"], "The path '~no-such-user/x' cannot be used"),
    "missing weights": (["--photos", "few", "--backbone", "nope.pth"], "There is no backbone file "),
    "weights that are text": (["--photos", "few", "--backbone", "text"], "it is neither a file of PyTorch's first"),
    "another architecture": (
        ["--preset", "dense", "--backbone", "text"],
        "backbone needs the architecture backbone, received dense. Leave --backbone out, or take the preset colorist.",
    ),
    "hints for another architecture": (
        ["--preset", "dense", "--hint-epochs", "2"],
        "hint_epochs is 2, but only a backbone that takes hints can learn from them. Set it to 0, or take the preset",
    ),
    "hints for a backbone without them": (
        ["--photos", "few", "--no-hints"],
        "hint_epochs is 20, but only a backbone that takes hints can learn from them. Set it to 0, or take the preset",
    ),
    "frozen for too long": (
        ["--epochs", "5"],
        "frozen_epochs and hint_epochs are 12 and 20, together more than the 5 epochs. Lower them, or raise epochs.",
    ),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Go to a folder with a text, a gray photo and one photo in colour."""
    folder = tmp_path / "files"
    for name, colour in {"gray": (90, 90, 90), "few": (200, 20, 20)}.items():
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(folder / name / "1.png")
    (folder / "text").write_text("Hello.")
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(("words", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_what_a_backbone_cannot_learn_from_is_refused_with_one_sentence(files, run, words, sentence, monkeypatch):
    monkeypatch.setattr(job, "import_tensorflow_quietly", lambda: pytest.fail("TensorFlow is imported"))
    code, out, err = run(*TRAIN, *words)
    assert (code, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    assert all(entry.shipped for entry in library.list_models())


def test_the_check_does_not_import_tensorflow(tmp_path):
    (tmp_path / "text").write_text("Hello.")
    words = [*TRAIN, "--photos", str(tmp_path), "--backbone", str(tmp_path / "text")]
    code = f"import sys; from colorizer.app import cli; print(cli.main({words!r}), 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "1 False\n", done.stderr
    assert "neither a file of PyTorch's first format nor a zip" in done.stderr


def test_paths_stand_on_the_command_line_as_they_were_given(monkeypatch):
    specs = []

    def capture(spec, *_):
        specs.append(spec)
        raise ColorizerError("far enough")

    monkeypatch.setattr(job, "run_training", capture)
    words = [*TRAIN, "--photos", "~/my photos.zip", "--backbone", "it's.whl"]
    cli.main(words)
    command = job.training_command(specs[0])
    assert "--photos '~/my photos.zip'" in command
    cli.main(shlex.split(command)[3:])
    assert specs[0] == specs[1]
    assert (specs[0].train.photos, specs[0].train.backbone) == ("~/my photos.zip", "it's.whl")


def test_the_phases_of_a_training_have_at_most_all_its_epochs():
    assert TrainConfig(epochs=3, frozen_epochs=1, hint_epochs=2).frozen_epochs == 1
    with pytest.raises(ConfigError, match="frozen_epochs and hint_epochs are 2 and 2, together more than the 3 epochs"):
        TrainConfig(epochs=3, frozen_epochs=2, hint_epochs=2)


@pytest.mark.slow
def test_the_card_says_where_the_weights_come_from_also_of_a_model_that_starts_from_it(tmp_path):
    path, photos = tmp_path / "weights.pth", tmp_path / "photos"
    photos.mkdir()
    draw_photos(photos)
    path.write_bytes(write_arrays(draw_weights()))
    train = TrainConfig(dataset="synthetic", epochs=0, photos=str(photos))
    specs = [
        TrainingSpec("first", SMALL_BACKBONE, train.replace(backbone=str(path)), "colorist"),
        TrainingSpec("second", SMALL_BACKBONE, train.replace(init_from="first"), "colorist"),
        TrainingSpec("third", SMALL_BACKBONE, train, "colorist"),
    ]
    first, second, third = (job.run_training(spec, *[lambda *_: False] * 3) for spec in specs)
    assert set(first.card["backbone"]) == {"name", "sha256"}
    assert second.card["backbone"] == library.find_model("first").card["backbone"] == first.card["backbone"]
    assert third.card["backbone"] == {}
    assert second.metric("samples") == pytest.approx(first.metric("samples"), rel=1e-3)
    assert third.metric("samples") != pytest.approx(first.metric("samples"), rel=1e-3)
