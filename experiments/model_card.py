"""A saved model: the packed file, and a JSON card that says how it was made."""

import dataclasses
import json

import scc_tf
from scc_tf.atomic import atomic_path


def save_with_card(model_dir, name, model, command, **measured):
    """Write ``<name>.scc`` and ``<name>.json``; ``measured`` stands in the card beside the parts of the file."""
    packed = scc_tf.save_packed(model, model_dir / f"{name}.scc")
    card = {
        "command": command,
        **measured,
        **dataclasses.asdict(packed),
        "load": f'scc_tf.load_packed("saved_models/{name}.scc")',
    }
    with atomic_path(model_dir / f"{name}.json") as partial:
        partial.write_text(json.dumps(card, indent=1))
