"""What this machine computes with, for records of latency."""

import platform
from pathlib import Path

__all__ = ["processor"]


def processor():
    """This machine's processor: its ``name``, and those of its ``features`` that fast kernels want."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")
    return {"name": (names or [platform.processor()])[0], "features": [name for name in known if name in info.split()]}
