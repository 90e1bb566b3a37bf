"""The machine that a measurement was made on, in words."""

import os
import platform
import re
from pathlib import Path

import torch


def machine() -> str:
    """Processor, cores, and whether it multiplies in bfloat16."""
    info = Path("/proc/cpuinfo").read_text()
    names, flags = re.findall(r"model name\s*: (.*)", info), re.findall(r"flags\s*: (.*)", info)
    known = set(flags[0].split()) if flags else set()
    units = ", ".join(
        f"{label} {'yes' if any(flag.startswith(prefix) for flag in known) else 'no'}"
        for label, prefix in (("AVX-512", "avx512f"), ("AVX-512 BF16", "avx512_bf16"), ("AMX", "amx"))
    )
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{names[0] if names else platform.machine()}, {cores} cores ({threads} threads), {units}, {gpu}"
