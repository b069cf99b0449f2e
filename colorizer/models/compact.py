"""Makes the files of a saved network smaller: it compresses them, and stores weights as float16."""

import io
import zipfile
from pathlib import Path

import numpy as np

_WEIGHTS = "model.weights.h5"


def compress_weights(path: Path, half: bool) -> None:
    """Rewrite a `.keras` file compressed; Keras loads it as any other.

    Args:
        path: the file.
        half: whether its float32 weights become float16; those that are not exactly float16 numbers are rounded.
    """
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if half:
        parts[_WEIGHTS] = _halve(parts[_WEIGHTS])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def _halve(weights: bytes) -> bytes:
    """Return an HDF5 file with float16 in place of float32."""
    import h5py  # Keras writes its weights with it.

    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(weights), "r") as before, h5py.File(buffer, "w") as after:
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
    return buffer.getvalue()


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
