"""Reading a SavedModel folder; its graph is checked before anything of it is loaded.

Loading runs a SavedModel's initializers, and calling it runs its signatures: its operations are
TensorFlow's own, but some of these read and write files, or call Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.variable_pb2 import VariableDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from alp_repro.classifiers.harmless_operations import HARMLESS
from alp_repro.errors import InputError, one_line

_RESTORING = frozenset({"RestoreV2", "Restore", "RestoreSlice"})
_SAVING = frozenset({"SaveV2", "MergeV2Checkpoints"})

# ("node", its name) of the graph itself, or ("function", its name) of its library.
_Place = tuple[str, str]


def load_saved_model(path: Path, *, trust_code: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the inference function of a SavedModel: images to the output of its signature.

    Args:
      path: the folder, with a saved_model.pb.
      trust_code: also load a graph with operations that are not known to be harmless.

    Raises:
      InputError: it cannot be read, has such an operation, or not one input and one output.
    """
    if not trust_code:
        check_operations(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # of many kinds, for a damaged or foreign folder
        raise InputError(
            f"model {path} could not be loaded as a SavedModel ({one_line(error)})"
        ) from error
    signatures = dict(getattr(loaded, "signatures", {}))
    if not signatures:
        raise InputError(f"model {path} has no signature to call: export it with model.export")
    name = next((n for n in ("serving_default", "serve") if n in signatures), min(signatures))
    signature = signatures[name]
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1 or len(signature.structured_outputs) != 1:
        raise InputError(
            f"model {path}: signature {name} has {len(inputs)} inputs and "
            f"{len(signature.structured_outputs)} outputs: expected one of each"
        )
    ((argument, spec),) = inputs.items()

    def outputs(images: tf.Tensor) -> tf.Tensor:
        (values,) = signature(**{argument: tf.cast(images, spec.dtype)}).values()
        return values

    outputs.loaded = loaded  # type: ignore[attr-defined]  # keeps its variables alive
    return outputs


def check_operations(path: Path) -> None:
    """Check that a SavedModel has only harmless operations, without loading it.

    Operations that save and restore its variables are allowed if nothing else leads to them: every
    SavedModel has them, and neither loading nor calling it runs any of them, except the restoring
    of TensorFlow 1.

    Args:
      path: the folder.

    Raises:
      InputError: it has another operation, or saved_model.pb cannot be read.
    """
    model = SavedModel()
    try:
        model.ParseFromString((path / "saved_model.pb").read_bytes())
    except OSError as error:
        raise InputError(f"model {path} cannot be read ({error.strerror})") from error
    except (DecodeError, ValueError) as error:
        raise InputError(
            f"model {path} could not be loaded as a SavedModel (saved_model.pb: {one_line(error)})"
        ) from error
    for graph in model.meta_graphs:
        for operation, where in _refused(graph):
            raise InputError(
                f"model {path} has the operation {operation} ({where}), which is not known to be "
                "harmless: export the model without it, or, if you trust its author, trust its "
                "code (trust_code)"
            )


def _refused(graph: Any) -> Iterator[tuple[str, str]]:
    """Yield each operation of a MetaGraphDef that is not allowed, and where it is."""
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    saver = graph.saver_def
    edges = _edges(graph, set(functions))
    saving = _reached(edges, [_node(saver.save_tensor_name)])
    restoring = _reached(edges, [_node(saver.restore_op_name)])
    saver_only = (saving | restoring) - _reached(
        edges, _run(graph, edges.keys(), saving | restoring)
    )

    def harmless(node: Any, place: _Place, prefixes: set[str]) -> bool:
        if node.op in functions:  # a call, unless the function has the name of a real operation
            return not hasattr(tf.raw_ops, node.op)
        if node.op in _RESTORING and place in saver_only:
            return bool(node.input) and node.input[0].partition(":")[0] in prefixes
        if node.op in _SAVING and place in saver_only:
            return place not in restoring
        return node.op in HARMLESS

    file = {saver.filename_tensor_name.partition(":")[0]}
    for node in graph.graph_def.node:
        if not harmless(node, ("node", node.name), file):
            yield node.op, f"node {node.name}"
    for name, function in functions.items():
        if hasattr(tf.raw_ops, name):
            yield name, "a function of this name"
        arguments = {argument.name for argument in function.signature.input_arg}
        for node in function.node_def:
            if not harmless(node, ("function", name), arguments):
                yield node.op, f"node {node.name} of function {name}"


def _node(tensor: str) -> _Place:
    """Return the node of an input or a tensor's name: "^a", "a:0" and "a" are a."""
    return "node", tensor.removeprefix("^").partition(":")[0]


def _edges(graph: Any, functions: set[str]) -> dict[_Place, set[_Place]]:
    """Return what each node and function leads to: its inputs and the functions it calls."""
    edges: dict[_Place, set[_Place]] = {}
    for node in graph.graph_def.node:
        called = _called(node, functions)
        edges.setdefault(("node", node.name), set()).update(map(_node, node.input), called)
    for function in graph.graph_def.library.function:
        found = edges.setdefault(("function", function.signature.name), set())
        for node in function.node_def:
            found |= _called(node, functions)
        found |= _named(function.attr.values(), functions)
    return edges


def _called(node: Any, functions: set[str]) -> set[_Place]:
    direct = {("function", node.op)} if node.op in functions else set()
    return direct | _named(node.attr.values(), functions)


def _named(values: Iterable[Any], functions: set[str]) -> set[_Place]:
    """Return the functions that attributes name, as functions or in text."""
    found: set[_Place] = set()
    for value in values:
        texts = [value.s, *value.list.s]
        for inner in (value.func, *value.list.func):
            if inner.name:
                texts.append(inner.name.encode())
                found |= _named(inner.attr.values(), functions)
        found |= {("function", t.decode("utf-8", "replace")) for t in texts}
    return {place for place in found if place[1] in functions}


def _reached(edges: dict[_Place, set[_Place]], roots: Iterable[_Place]) -> set[_Place]:
    """Return the places that can be reached from the roots."""
    found: set[_Place] = set()
    waiting = list(roots)
    while waiting:
        place = waiting.pop()
        if place not in found and place in edges:
            found.add(place)
            waiting += edges[place]
    return found


def _run(graph: Any, places: Iterable[_Place], of_saver: set[_Place]) -> set[_Place]:
    """Return the places that may run although the saver does not lead to them."""
    library = graph.graph_def.library
    run = set(places) - of_saver
    run |= {("function", name) for name in graph.object_graph_def.concrete_functions}
    run |= {("function", gradient.gradient_func) for gradient in library.gradient}
    run |= {("function", gradient.gradient_func) for gradient in library.registered_gradients}
    # The graph optimizer replaces such functions by each other.
    run |= {("function", f.signature.name) for f in library.function if "api_implements" in f.attr}
    for signature in graph.signature_def.values():
        for tensor in (*signature.inputs.values(), *signature.outputs.values()):
            parts = tensor.composite_tensor.components
            sparse = tensor.coo_sparse
            names = (tensor.name, sparse.values_tensor_name, sparse.indices_tensor_name)
            names += (sparse.dense_shape_tensor_name, *(part.name for part in parts))
            run |= set(map(_node, names))
    for collection in graph.collection_def.values():
        run |= set(map(_node, collection.node_list.value))
        for content in collection.bytes_list.value:
            run |= _of_variable(content)
    return run


def _of_variable(content: bytes) -> set[_Place]:
    """Return the nodes that TensorFlow 1's record of a variable names; none for other records."""
    variable = VariableDef()
    try:
        variable.ParseFromString(content)
    except (DecodeError, ValueError):
        return set()
    names = (variable.variable_name, variable.initializer_name, variable.snapshot_name)
    return set(map(_node, (*names, variable.initial_value_name)))
