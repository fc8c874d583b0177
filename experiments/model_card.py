"""A saved model: its file, and a JSON card that says how it was made."""

import dataclasses
import json

import keras

import scc_tf
from scc_tf.atomic import atomic_path


def save_with_card(model_dir, name, model, command, **measured):
    """Write ``<name>.scc`` and ``<name>.json``; ``measured`` stands in the card beside the parts of the file."""
    packed = scc_tf.save_packed(model, model_dir / f"{name}.scc")
    parts = {**measured, **dataclasses.asdict(packed)}
    _write_card(model_dir / f"{name}.json", command, parts, f'scc_tf.load_packed("saved_models/{name}.scc")')


def save_keras_with_card(model_dir, name, model, command, **measured):
    """Write ``<name>.keras``, without the optimizer, and ``<name>.json``, a card as that of a packed file."""
    with atomic_path(model_dir / f"{name}.keras") as partial:
        keras.Model(model.inputs[0], model.outputs[0], name=model.name).save(partial)  # not compiled
    parts = {**measured, "stored_bytes": (model_dir / f"{name}.keras").stat().st_size}
    _write_card(model_dir / f"{name}.json", command, parts, f'keras.models.load_model("saved_models/{name}.keras")')


def _write_card(path, command, parts, load):
    with atomic_path(path) as partial:
        partial.write_text(json.dumps({"command": command, **parts, "load": load}, indent=1))
