"""Your photo, in process: sources, steering, several models, several files, and what is wrong with a file."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
import skimage.data
from PIL import Image

from colorizer.app.widgets import files, state
from colorizer.config import MAX_FILES
from colorizer.models import library
from colorizer.models.colorizer import load
from colorizer.models.scale import SCALES
from colorizer.pixels.color import to_luminance
from colorizer.pixels.images import PHOTOS, decode_image
from colorizer.pixels.metrics import compute_metrics
from tests.app.conftest import texts

pytestmark = pytest.mark.slow  # Whole pages are run.

ENTRIES = {entry.name: entry for entry in library.list_models()}
NO_PICTURE = "is not a picture this app can read"


def encode(image, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


GRAY = encode(np.linspace(0, 255, 61 * 47).reshape(47, 61).astype(np.uint8))
COLOURS = encode(skimage.data.chelsea()[:200, :300])


def upload(app, *uploads):
    for name, content in uploads:
        app.file_uploader(key="upload").upload(name, content)
    app.run()
    assert not app.exception
    return app


def sliders(app):
    """What each before/after slider on the page was given."""
    return [json.loads(element.proto.json) for element in app.get("bidi_component")]


def results(app):
    return [data["after"][1] for data in sliders(app)]


def shown(app):
    return [image.alt for element in app.image for image in element.proto.imgs]


def test_without_a_picture_it_says_what_to_do_and_what_it_takes(open_page):
    app = open_page("photo")
    assert "Choose a picture" in app.info[0].value
    assert "HEIC" in texts(app) and "20 files of 20 MB and 50 megapixels" in texts(app)


def test_an_upload_is_shown_before_and_after_at_its_own_proportions(open_page):
    app = upload(open_page("photo", model="dense-chroma"), ("mine.png", GRAY))
    (data,) = sliders(app)
    assert data["before"][1] == "mine.png, in grayscale"
    assert data["after"][1] == "mine.png, colorized by dense-chroma"
    assert data["ratio"] == pytest.approx(61 / 47)
    assert all(data[side][0].startswith("data:image/jpeg;base64,") for side in ("before", "after"))
    assert "61 x 47 pixels" in texts(app)
    assert "Against the original" not in texts(app)  # A gray picture has no colours to compare with.


def test_a_bad_file_gets_its_sentence_and_the_settings_stay(open_page):
    app = open_page("photo", model="dense-chroma", strength="0.5")
    upload(app, ("notes.png", b"just text"))
    assert NO_PICTURE in app.error[0].value
    assert (app.multiselect(key="model").value, app.slider(key="strength").value) == (["dense-chroma"], 0.5)


def test_the_camera_is_a_source(open_page):
    app = open_page("photo", source="Camera", model="linear")
    app.camera_input(key="camera").upload("shot.jpg", encode(skimage.data.chelsea()[:64, :64], "JPEG")).run()
    assert results(app) == ["camera.jpg, colorized by linear"]
    assert not app.exception and not app.error


@pytest.mark.parametrize("name", ["coffee", pytest.param("retina", marks=pytest.mark.slow)])
def test_sample_photos_are_shown_beside_their_own_colours(open_page, name):
    app = open_page("photo", source="Sample photos", photo=name)
    assert len(sliders(app)) == 1
    assert shown(app) == [f"{PHOTOS[name]}, the original colours"]


def test_several_models_are_shown_side_by_side_on_the_same_photo(open_page):
    app = open_page("photo", source="Sample photos", model=["linear", "dense-chroma"])
    assert [alt.split("by ")[1] for alt in results(app)] == ["linear", "dense-chroma"]
    before, after = zip(*((data["before"][0], data["after"][0]) for data in sliders(app)), strict=True)
    assert before[0] == before[1] and after[0] != after[1]
    assert "| linear | dense-chroma | gray copy |" in texts(app)


def test_a_model_that_fails_says_so_in_its_place_and_the_others_are_shown(open_page, home):
    shutil.copytree(library.SHIPPED / "linear", library.user_folder() / "broken")
    network = library.user_folder() / "broken" / "model.onnx"
    network.write_bytes(bytes(network.stat().st_size))  # The size is right, so the damage shows only when it is loaded.
    app = upload(open_page("photo", model=["broken", "linear"]), ("cat.png", COLOURS))
    assert "broken" in app.error[0].value and len(app.error) == 1
    assert results(app) == ["cat.png, colorized by linear"]
    assert "| linear | gray copy |" in texts(app)
    app.multiselect(key="model").set_value(["broken"]).run()
    assert len(app.error) == 1 and not app.exception and not sliders(app)


def test_a_model_that_is_not_there_is_ignored_in_the_url(open_page):
    assert len(sliders(open_page("photo", source="Sample photos", model="nonsense"))) == 1


def test_colours_of_the_upload_stand_beside_it_with_the_metrics(open_page):
    app = upload(open_page("photo", model="linear"), ("cat.png", COLOURS))
    assert shown(app) == ["cat.png, the original colours"]
    truth = decode_image(COLOURS)
    expected = compute_metrics(state.colorize(ENTRIES["linear"], COLOURS, state.PhotoSettings())[None], truth[None])
    assert f"| colour difference, `delta_e` ↓ | {expected['delta_e']:.2f} |" in texts(app)
    assert "| amount of colour, `colorfulness`  | " in texts(app)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (1, 3000), (3000, 1), (20, 3000)])
def test_pictures_too_small_to_be_measured_are_still_shown(open_page, shape):
    content = encode(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
    app = upload(open_page("photo", model="linear"), ("thin.png", content))
    assert len(sliders(app)) == 1 and not app.error
    assert "gray copy" not in texts(app)


@pytest.mark.slow
def test_vividness_is_offered_to_the_models_that_have_it_and_working_size_to_unets(open_page):
    offered = {}
    for name in ("linear", "unet", "unet-vivid"):
        app = open_page("photo", source="Sample photos", model=name)
        keys = {slider.key for kind in (app.slider, app.select_slider) for slider in kind}
        offered[name] = keys & {"vividness", "strength", "size"}
    assert offered == {
        "linear": {"strength"},
        "unet": {"strength", "size"},
        "unet-vivid": {"strength", "size", "vividness"},
    }
    assert app.select_slider(key="size").options == ["auto", *map(str, SCALES["unet"].offered_sizes)]
    assert app.select_slider(key="size").value == "auto"


@pytest.mark.slow
def test_strength_vividness_and_size_change_the_picture(open_page):
    app = upload(open_page("photo", model="unet-vivid"), ("mine.png", encode(skimage.data.camera()[::8, ::8])))
    pictures = [sliders(app)[0]["after"][0]]
    for slider, value in (("vividness", 1.0), ("strength", 1.5)):
        app.slider(key=slider).set_value(value).run()
        pictures.append(sliders(app)[0]["after"][0])
    app.select_slider(key="size").set_value("96").run()
    pictures.append(sliders(app)[0]["after"][0])
    assert len(set(pictures)) == 4
    app.slider(key="strength").set_value(0.0).run()
    assert sliders(app)[0]["after"][0] == sliders(app)[0]["before"][0]


def test_moving_strength_and_vividness_runs_no_network_and_sample_photos_load_none(open_page, monkeypatch):
    monkeypatch.setattr("colorizer.models.colorizer.load_network", None)
    app = open_page("photo", source="Sample photos", photo="coffee", model="unet-vivid")
    seen = [sliders(app)[0]["after"][0]]
    for slider, value in (("strength", 0.5), ("vividness", 1.0)):
        app.slider(key=slider).set_value(value).run()
        seen.append(sliders(app)[0]["after"][0])
    assert len(set(seen)) == 3 and not app.error and not app.exception


@pytest.mark.slow
def test_the_download_is_what_the_library_makes_of_the_picture(open_page):
    open_page("photo")  # This empties the caches.
    for name, settings in (
        ("linear", state.PhotoSettings(strength=0.7)),
        ("unet", state.PhotoSettings(working_size=48)),
    ):
        downloaded = decode_image(state.colorize_fully(ENTRIES[name], COLOURS, settings))
        _, strength, size = settings[:3]
        expected = load(name).colorize(decode_image(COLOURS), strength=strength, size=size)
        assert np.abs(downloaded.astype(int) - expected).max() <= 1


def test_the_raw_output_of_the_network_is_shown_on_demand(open_page):
    app = upload(open_page("photo", model="dense-chroma", raw="true"), ("mine.png", GRAY))
    assert shown(app) == ["mine.png, the 32 x 32 pixels that dense-chroma made"]
    app.toggle(key="raw").set_value(False).run()
    assert not shown(app)


def test_the_result_has_the_full_resolution_the_luminance_and_the_alpha_of_the_picture(open_page):
    open_page("photo")  # This empties the caches.
    rgba = np.random.default_rng(0).integers(0, 256, (1500, 40, 4), np.uint8)
    result = decode_image(state.colorize_fully(ENTRIES["linear"], encode(rgba), state.PhotoSettings()))
    assert result.shape == rgba.shape
    np.testing.assert_array_equal(result[..., 3], rgba[..., 3])
    assert np.abs(to_luminance(result[..., :3]) - to_luminance(rgba[..., :3])).max() <= 1 / 255 + 1e-6


def test_several_files_get_a_row_each_and_a_bad_one_stops_nothing(open_page):
    app = open_page("photo", model="linear")
    upload(app, ("a.png", GRAY), ("notes.png", b"just text"), ("b*.png", COLOURS))
    assert [element.value for element in app.text] == ["a.png", "notes.png", "b*.png"]
    assert [element.value for element in app.error if NO_PICTURE in element.value] == [app.error[0].value]
    assert shown(app) == ["a.png, colorized", "", "b*.png, colorized"]
    assert "2 of 3 colorized by linear" in texts(app)
    assert "47 pixels" in texts(app) and "300 x 200 pixels" in texts(app)


def test_files_that_are_done_are_kept_until_a_setting_changes(open_page):
    both = ("a.png", GRAY), ("b.png", COLOURS)
    app = upload(open_page("photo", model="linear"), *both)
    first = dict(app.session_state["results"])
    upload(app, *both, ("c.png", encode(np.zeros((8, 8), np.uint8))))
    second = dict(app.session_state["results"])
    assert len(second) == 3 and all(second[key] is result for key, result in first.items())
    app.slider(key="strength").set_value(0.5).run()
    assert len(app.session_state["results"]) == 3 and not second.keys() & app.session_state["results"].keys()
    upload(app, both[0])
    assert "results" not in app.session_state


def test_only_so_many_files_are_taken(open_page):
    tiny = encode(np.zeros((2, 2), np.uint8))
    app = upload(open_page("photo", model="linear"), *((f"{n}.png", tiny) for n in range(MAX_FILES + 1)))
    assert f"the first {MAX_FILES}" in app.warning[0].value
    assert len(app.text) == MAX_FILES


@pytest.mark.parametrize(
    ("names", "safe"),
    [
        (["a.jpg", "a.png", "A.gif"], ["a", "a-2", "A-3"]),
        (["../../etc/passwd", "c:\\evil.png", ".png"], ["passwd", "c-evil", "png"]),
        (["Straße am See.jpg", "<b>.png", "a/.."], ["Straße-am-See", "b", "picture"]),
        (["x" * 300 + ".png"], ["x" * 80]),
        (["a-2.png", "a.png", "a.jpg"], ["a-2", "a", "a-3"]),
    ],
)
def test_names_in_the_zip_are_safe_and_unique(names, safe):
    assert files.safe_names(names) == safe


def test_the_zip_holds_the_results_stored(open_page):
    open_page("photo")  # This empties the caches.
    content = files.pack_zip([("a.jpg", GRAY), ("b.png", COLOURS)], ENTRIES["linear"], state.PhotoSettings())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {info.filename: info.compress_type for info in archive.infolist()} == {
            "a.png": zipfile.ZIP_STORED,
            "b.png": zipfile.ZIP_STORED,
        }
        whole = state.colorize_fully(ENTRIES["linear"], COLOURS, state.PhotoSettings())
        assert archive.read("b.png") == whole
