"""Run a TFLite file, as a phone would."""

import numpy as np

__all__ = ["run_tflite"]


def run_tflite(path, inputs, threads=1):
    """Outputs of a TFLite file of one input and one output, example by example, by LiteRT.

    Args:
        path: the file.
        inputs: float array ``(N, …)``.
        threads: of the interpreter.

    Returns:
        Float array ``(N, …)``.

    Raises:
        ValueError: if the file has several inputs or outputs, or its input has another shape; as the interpreter,
            if it is no TFLite file.

    Example:
        >>> classes = run_tflite("mnist.tflite", images).argmax(-1)             # doctest: +SKIP
    """
    from ai_edge_litert.interpreter import Interpreter  # here: it is a large library that only this needs

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    entries, ends = interpreter.get_input_details(), interpreter.get_output_details()
    if len(entries) != 1 or len(ends) != 1:
        raise ValueError(
            f"Expected a file with one input and one output. Received: {len(entries)} inputs, {len(ends)} outputs"
        )
    inputs = np.asarray(inputs, entries[0]["dtype"])
    example = tuple(entries[0]["shape"].tolist()[1:])
    if inputs.shape[1:] != example:
        raise ValueError(f"Expected examples of shape {example}. Received: inputs={inputs.shape}")
    outputs = []
    for example in inputs:
        interpreter.set_tensor(entries[0]["index"], example[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(ends[0]["index"])[0])
    return np.array(outputs)
