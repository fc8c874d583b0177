"""The public names carry types: every parameter, and what comes back."""

import inspect

import scc_tf
from scc_tf.export import run_tflite


def public():
    """`(name, function)` of everything that a user calls: functions, constructors, public methods."""
    names = {name: getattr(scc_tf, name) for name in scc_tf.__all__} | {"run_tflite": run_tflite}
    names |= {f"callbacks.{name}": getattr(scc_tf.callbacks, name) for name in scc_tf.callbacks.__all__}
    for name, found in names.items():
        if inspect.isfunction(found):
            yield name, found
        elif inspect.isclass(found):
            own = {key: member for key, member in vars(found).items() if key == "__init__" or key[0] != "_"}
            yield from ((f"{name}.{key}", member) for key, member in own.items() if inspect.isfunction(member))


def is_a_hook_of_keras(name):
    """Whether Keras names the parameters: ``on_train_batch_end(batch, logs)`` and the like."""
    method = name.rpartition(".")[2]
    return method.startswith("on_") or method in HOOKS


HOOKS = {"build", "call", "compute_loss", "compute_metrics", "fit", "get_config", "set_model", "test_step", "train_step"}


def test_every_parameter_has_a_type():
    missing = []
    for name, function in public():
        signature = inspect.signature(function)
        free = [p for p in signature.parameters.values() if p.name != "self" and p.kind.name[:3] != "VAR"]
        untyped = [p.name for p in free if p.annotation is p.empty]
        if not is_a_hook_of_keras(name) and (
            untyped or ("__init__" not in name and signature.return_annotation is inspect.Signature.empty)
        ):
            missing.append(f"{name}({', '.join(untyped)}) -> {signature.return_annotation}")
    assert not missing, "\n" + "\n".join(missing)
