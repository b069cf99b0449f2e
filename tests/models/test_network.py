"""Graphs in ONNX give what Keras gives; those that are not ours are refused with a sentence and harm nothing."""

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from colorizer import config
from colorizer.errors import ModelError, TrainingError
from colorizer.models import library
from colorizer.models.colorizer import Colorizer, load
from colorizer.models.network import load_network
from colorizer.pixels.color import split_luminance, to_luminance
from colorizer.pixels.images import load_photo

SHIPPED = sorted(path.name for path in library.SHIPPED.iterdir() if path.is_dir())


def _graph(nodes, weights=(), architecture="dense", **opsets):
    """Return a graph from luminance to an image."""
    luminance = helper.make_tensor_value_info("luminance", TensorProto.FLOAT, ["images", 32, 32, 1])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["images", 32, 32, None])
    graph = helper.make_graph(nodes, "graph", [luminance], [image], list(weights))
    versions = [helper.make_opsetid(domain, version) for domain, version in ({"": 18} | opsets).items()]
    model = helper.make_model(graph, opset_imports=versions, ir_version=9)
    helper.set_model_props(model, {"architecture": architecture})
    return model.SerializeToString()


def _node(operator, inputs="luminance", output="image", **attributes):
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def _outside_weights():
    weights = onnx.TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4])
    weights.data_location = TensorProto.EXTERNAL
    place = weights.external_data.add()
    place.key, place.value = "location", "../../../../etc/passwd"
    return weights


def _doublings():
    """Return nodes that double the width of an image 30 times: it would take 4,000 GB."""
    names = [f"width_{power}" for power in range(31)]
    steps = [_node("Concat", f"{a} {a}", b, axis=2) for a, b in itertools.pairwise(["luminance", *names])]
    return [*steps, _node("ReduceMax", names[-1])]


HOSTILE = {
    "no graph": b"This is a text.",
    "truncated": _graph([_node("Relu")])[:-20],
    "weights outside of its folder": _graph([_node("Add", "luminance weights")], [_outside_weights()]),
    "an operator of its own": _graph([_node("Run", domain="evil")], evil=1),
    "another architecture": _graph([_node("Relu")], architecture="unet"),
    "no luminance": _graph([_node("Relu")]).replace(b"luminance", b"darkness."),
}


def _replace_graph(entry, graph):
    """Put another graph in place of the model's, with a card that agrees."""
    (entry.path / "model.onnx").write_bytes(graph)
    return library.update_card(entry, onnx_sha256=hashlib.sha256(graph).hexdigest(), onnx_bytes=len(graph))


@pytest.mark.parametrize("graph", HOSTILE.values(), ids=HOSTILE)
def test_a_graph_that_is_not_ours_is_refused_with_a_sentence(save_tiny, home, graph):
    entry = _replace_graph(save_tiny(), graph)
    with pytest.raises(ModelError, match=r"tiny .*\. .*train it again\.$") as caught:
        load_network(entry)
    assert str(home) not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("nodes", [_doublings(), [_node("Flatten")]], ids=["memory", "shape"])
def test_a_graph_that_asks_for_too_much_or_makes_no_images_gives_a_sentence(save_tiny, samples, nodes):
    entry = _replace_graph(save_tiny(), _graph(nodes))
    with pytest.raises(ModelError, match=r"^A network (could not run|made )"):
        Colorizer(None, entry).predict(to_luminance(samples.images))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_graph_of_a_shipped_model_predicts_what_keras_predicts(name):
    from colorizer.training.export import check_graph, load_keras_model

    entry = library.find_model(name)
    check_graph((entry.path / "model.onnx").read_bytes(), load_keras_model(entry))


def test_the_graph_of_another_model_is_noticed():
    from colorizer.training.export import check_graph, load_keras_model

    graph = (library.SHIPPED / "notebook" / "model.onnx").read_bytes()
    with pytest.raises(TrainingError, match=r"The exported network differs from the trained one by 0\.\d on"):
        check_graph(graph, load_keras_model(library.find_model("linear")))


@pytest.mark.slow
def test_a_model_of_an_earlier_version_is_exported_when_it_is_first_used(home, samples, caplog):
    folder = library.user_folder() / "old"
    shutil.copytree(library.SHIPPED / "dense", folder)
    (folder / "model.onnx").unlink()
    old = library.update_card(library.ModelEntry("old", folder, library.find_model("dense").card), onnx_sha256="")
    assert old.damage is None and not old.exported
    luminance = to_luminance(samples.images)
    expected = Colorizer(None, library.find_model("dense")).predict(luminance)
    np.testing.assert_allclose(Colorizer(None, old).predict(luminance), expected, atol=1e-6)
    assert "old was saved by an earlier version" in caplog.text
    assert library.find_model("old").exported


def test_a_damaged_model_of_an_earlier_version_says_so(home):
    folder = library.user_folder() / "old"
    shutil.copytree(library.SHIPPED / "linear", folder)
    (folder / "model.onnx").unlink()
    path = folder / "model.keras"
    path.write_bytes(bytes(path.stat().st_size))
    old = library.update_card(library.ModelEntry("old", folder, library.find_model("linear").card), onnx_sha256="")
    with pytest.raises(ModelError, match=r"model\.keras of old does not match the checksum on its card"):
        load_network(old)


def test_colorizing_needs_no_tensorflow():
    code = """if True:
        import sys
        from colorizer.models.colorizer import load
        from colorizer.pixels.images import load_photo
        print(load("colorist").colorize(load_photo("coffee")).shape)
        print([name for name in ("tensorflow", "keras", "onnx") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("(400, 600, 3)\n[]\n", "")


def test_the_lines_in_the_documentation_colorize_a_photo_with_onnxruntime_and_pillow_alone(tmp_path):
    text = (config.ASSETS.parent / "docs" / "models.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import numpy.*?)```", text, re.DOTALL)
    assert len(code.split("\n")) - code.count("\n\n") <= 11 and "colorizer" not in code
    shutil.copy(library.SHIPPED / "colorist" / "model.onnx", tmp_path / "colorist.onnx")
    photo = load_photo("chelsea")
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=95)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, timeout=60)
    result = np.asarray(Image.open(tmp_path / "colours.png"))
    assert result.shape == photo.shape
    expected = load("colorist").colorize(photo)
    assert np.abs(split_luminance(result)[1] - split_luminance(expected)[1]).mean() < 0.01
    assert np.abs(to_luminance(result) - to_luminance(photo)).mean() < 0.01


def test_the_runtime_leaves_no_telemetry_and_no_file(tmp_path):
    code = "import os, colorizer, numpy; colorizer.load('linear').colorize(numpy.zeros((8, 8), numpy.uint8)); "
    code += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    folders = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"), str(tmp_path))
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | folders, timeout=60)
    assert done.stdout.strip() == "1", done.stderr
    assert not list(tmp_path.iterdir())
