"""Own pictures on the Train page, in process: what is uploaded, refused, shown, and given to the run."""

import io

import pytest
from PIL import Image

from colorizer.jobs import runs
from tests.app.conftest import alt_texts, start_training, texts

pytestmark = pytest.mark.slow  # Whole pages are run.


def colored_pictures(number):
    """Return the names and contents of PNG files, each of one colour."""
    files = []
    for index in range(number):
        buffer = io.BytesIO()
        Image.new("RGB", (50, 40), (220, index, 255 - index)).save(buffer, "PNG")
        files.append((f"{index}.png", buffer.getvalue(), "image/png"))
    return files


def upload_own(app, files):
    for name, content, kind in files:
        app.file_uploader(key="own_files").upload(name, content, kind)
    app.run()


def test_a_network_learns_from_pictures_that_are_uploaded_on_the_page(open_page, fake_service):
    app = open_page("train", dataset="own")
    next(button for button in app.button if button.label == "Start training").click().run()
    assert "There are no pictures to learn from" in app.error[0].value
    upload_own(app, colored_pictures(12))
    assert "Of 12 pictures, 12 can be used" in app.error[0].value
    app = open_page("train", dataset="own")
    upload_own(app, colored_pictures(30))
    assert "It learns from 24 pictures, is validated on 3 and tested on 3 others." in texts(app)
    assert "The first 20 pictures that it learns from" in alt_texts(app)
    assert not app.error
    start_training(app, "quick-own")
    run = next(run for run in fake_service.list_runs() if run.spec.name == "quick-own")
    assert (run.spec.train.dataset, len(runs.load_own_pictures(run.run_id))) == ("own", 30)
    assert "--dataset folder:PICTURES" in next(code.value for code in app.code if "colorizer train" in code.value)
    other = open_page("train", dataset="own")
    assert "is validated on" not in texts(other)  # Another visitor sees nothing of these pictures.
