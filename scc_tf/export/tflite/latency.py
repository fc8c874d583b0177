"""How fast TFLite files are, measured in turns."""

import platform
import time
from pathlib import Path

import numpy as np

__all__ = ["measure_latency", "processor"]


def measure_latency(paths, threads=1, rounds=200, calls=10, warm_up=50):
    """Latency of TFLite files with one input at batch 1, by LiteRT, on this machine as it is.

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

    Example:
        >>> measure_latency({"float": "a.tflite", "int8": "b.tflite"})["int8"]["ratio"]      # doctest: +SKIP
    """
    if not paths or min(threads, rounds, calls, warm_up) < 1:
        raise ValueError(
            f"Expected files, and numbers >= 1. Received: {paths=}, {threads=}, {rounds=}, {calls=}, {warm_up=}"
        )
    runners = {name: _Runner(path, threads) for name, path in paths.items()}
    for runner in runners.values():
        runner.microseconds(warm_up)
    taken = np.transpose([[runner.microseconds(calls) for runner in runners.values()] for _ in range(rounds)])
    return {name: _summary(own, taken[0]) for name, own in zip(runners, taken, strict=True)}


def processor():
    """This machine's processor: its ``name``, and those of its ``features`` that fast kernels want."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")
    return {"name": (names or [platform.processor()])[0], "features": [name for name in known if name in info.split()]}


class _Runner:
    """One interpreter with one file."""

    def __init__(self, path, threads):
        from ai_edge_litert.interpreter import Interpreter  # here: it is a large library that only this needs

        self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self.interpreter.allocate_tensors()
        entry = self.interpreter.get_input_details()[0]
        self.interpreter.set_tensor(entry["index"], np.random.default_rng(0).random(entry["shape"], np.float32))

    def microseconds(self, calls):
        """Mean latency of some calls in a row, µs."""
        started = time.perf_counter()
        for _ in range(calls):
            self.interpreter.invoke()
        return 1e6 * (time.perf_counter() - started) / calls


def _summary(taken, first):
    return {
        "median_us": float(np.median(taken)),
        "quartiles_us": np.quantile(taken, [0.25, 0.75]).tolist(),
        "ratio": float(np.median(taken / first)),
        "ratio_quartiles": np.quantile(taken / first, [0.25, 0.75]).tolist(),
    }
