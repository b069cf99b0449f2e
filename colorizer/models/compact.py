"""Stores the weights of a saved network as float16, which halves the file."""

import io
import zipfile
from pathlib import Path

import numpy as np

_WEIGHTS = "model.weights.h5"


def store_as_float16(path: Path) -> None:
    """Rewrite a `.keras` file with float16 instead of float32 weights; Keras loads it as any other.

    Args:
        path: the file. Where its weights are not exactly float16 numbers, they are rounded.
    """
    import h5py  # Keras writes its weights with it.

    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(parts[_WEIGHTS]), "r") as before, h5py.File(buffer, "w") as after:
        after.attrs.update(before.attrs)

        def copy(name: str, item: "h5py.Group | h5py.Dataset") -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                values = values.astype(np.float16) if values.dtype == np.float32 else values
                made = after.create_dataset(name, data=values)
            else:
                made = after.require_group(name)
            made.attrs.update(item.attrs)

        before.visititems(copy)
    parts[_WEIGHTS] = buffer.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def halve_graph(graph: bytes, rounded: bool) -> bytes:
    """Return an ONNX file with float16 instead of float32 weights; it still computes in float32.

    Args:
        graph: the file.
        rounded: whether weights that are not exactly float16 numbers are rounded; else they stay float32.
    """
    import onnx  # Only this needs it, so the server does not import it.

    model = onnx.load_model_from_string(graph)
    inputs = {value.name for value in model.graph.input}
    for weights in list(model.graph.initializer):
        if weights.data_type == onnx.TensorProto.FLOAT and weights.name not in inputs:
            stored, exact = f"{weights.name}_float16", onnx.numpy_helper.to_array(weights)
            values = exact.astype(np.float16)
            if exact.size <= 1 or not (rounded or np.array_equal(values, exact)):
                continue
            cast = onnx.helper.make_node("Cast", [stored], [weights.name], to=onnx.TensorProto.FLOAT)
            model.graph.initializer.remove(weights)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, stored))
            model.graph.node.insert(0, cast)
    return model.SerializeToString()
