"""How fast TFLite files are, measured in turns."""

import time

import numpy as np

from scc_tf.arguments import check_count, check_path, received
from scc_tf.export.tflite.interpreter import Runner

__all__ = ["measure_latency"]


def measure_latency(paths, threads=1, rounds=200, calls=10, warm_up=50):
    """Latency of TFLite files at batch 1, by LiteRT, on this machine as it is.

    The files take turns, so that a slow spell of the machine meets all of them; a ratio is taken within a round.

    Args:
        paths: ``{name: file}``; the first one is what the others are compared with.
        threads: of the interpreter.
        rounds: measurements of each file.
        calls: in one measurement.
        warm_up: calls of each file before the first measurement.

    Returns:
        ``{name: {"median_us", "quartiles_us", "ratio", "ratio_quartiles"}}``: microseconds of a call, and its median
        ratio to the first file, with quartiles.

    Raises:
        ValueError: if there are no files, or a number is less than 1; as the interpreter, if one is no TFLite file.
        FileNotFoundError: if one is not there.

    Example:
        >>> measure_latency({"float": "a.tflite", "int8": "b.tflite"})["int8"]["ratio"]      # doctest: +SKIP
    """
    if not isinstance(paths, dict) or not paths:
        raise ValueError(f"Expected paths to be a dict of files by name. {received('paths', paths)}")
    for name, number in {"threads": threads, "rounds": rounds, "calls": calls, "warm_up": warm_up}.items():
        check_count(name, number)
    for name, path in paths.items():
        check_path(f"paths[{name!r}]", path, exists=True)
    runners = {name: _Runner(path, threads) for name, path in paths.items()}
    for runner in runners.values():
        runner.microseconds(warm_up)
    taken = np.transpose([[runner.microseconds(calls) for runner in runners.values()] for _ in range(rounds)])
    quarters = (0.5, [0.25, 0.75])
    rows = ([np.quantile(x, q).tolist() for x in (own, own / taken[0]) for q in quarters] for own in taken)
    names = ("median_us", "quartiles_us", "ratio", "ratio_quartiles")
    return {name: dict(zip(names, row, strict=True)) for name, row in zip(runners, rows, strict=True)}


class _Runner(Runner):
    """One interpreter with one file, and inputs to run it on."""

    def __init__(self, path, threads):
        super().__init__(path, threads)
        random = np.random.default_rng(0)
        for entry in self.inputs.values():
            numbers = random.random(entry["shape"]) if entry["dtype"] == np.float32 else np.zeros(entry["shape"])
            self.interpreter.set_tensor(entry["index"], numbers.astype(entry["dtype"]))

    def microseconds(self, calls):
        """Mean latency of some calls in a row, µs."""
        started = time.perf_counter()
        for _ in range(calls):
            self.interpreter.invoke()
        return 1e6 * (time.perf_counter() - started) / calls
