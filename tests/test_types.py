"""The public names carry types: every parameter of theirs, and what functions return."""

import inspect

import scc_tf
from scc_tf.export import run_tflite


def test_every_parameter_has_a_type():
    public = {name: getattr(scc_tf, name) for name in scc_tf.__all__} | {"run_tflite": run_tflite}
    public |= {name: getattr(scc_tf.callbacks, name) for name in scc_tf.callbacks.__all__}
    public |= {
        "Compressed.save": scc_tf.Compressed.save,
        "SelfCompressingModel.compile": scc_tf.SelfCompressingModel.compile,
    }
    untyped = []
    for name, found in public.items():
        if not callable(found) or (inspect.isclass(found) and "__init__" not in vars(found)):
            continue
        function = found.__init__ if inspect.isclass(found) else found
        signature = inspect.signature(function)
        returns = inspect.isclass(found) or signature.return_annotation is not signature.empty
        free = [
            p
            for p in signature.parameters.values()
            if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        untyped += [f"{name}({p.name})" for p in free if p.annotation is p.empty] + ([] if returns else [f"{name} ->"])
    assert not untyped
