"""What this machine is: processor, memory, GPUs, compiler and library versions, found without importing torch."""

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from engine.measure.counters import counters
from engine.measure.roofs import measured

PACKAGES = ("torch", "transformers", "bitsandbytes", "torchao", "accelerate", "gradio", "plotly", "pandas", "numba")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
INSTRUCTIONS = (
    "avx2", "f16c", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_int8",
    "asimd", "bf16", "i8mm", "sve",
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU; `capability` is the compute capability, for instance 9.0."""

    name: str
    memory_bytes: int
    capability: str
    driver: str


@dataclass(frozen=True)
class Machine:
    """A fingerprint that every result carries. `gpus` holds only those that the installed torch can use.

    `caches` are the bytes of L1d, L2 and L3 that one core sees. `zero_gpu` says that this is a Space whose GPU is
    lent to the web process for seconds at a time, so that no worker can use it. `counters` are the meters of power
    and energy that can be read.
    """

    system: str
    processor: str
    cores: int
    memory_bytes: int
    instructions: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    compiler: str | None
    python: str
    packages: dict[str, str | None]
    caches: dict[str, int] = field(default_factory=dict)
    zero_gpu: bool = False
    counters: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: dict[str, Any]) -> "Machine":
        """The machine of a result, also of one that says more of it than this version knows."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**{**known, "gpus": tuple(Gpu(**gpu) for gpu in data["gpus"])})

    def summary(self) -> str:
        """One line for a header."""
        if self.gpus:
            shared = " · a shared slice" * self.zero_gpu
            return f"{self.gpus[0].name} · {self.gpus[0].memory_bytes / 2**30:.0f} GiB{shared}"
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{self.processor} · {cores} · {self.memory_bytes / 2**30:.0f} GiB"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with what was `measured` here where that was done."""
        return {**asdict(self), "measured": measured(self)}


@cache
def machine() -> Machine:
    """Look once; takes some 50 ms."""
    packages = {name: _version(name) for name in PACKAGES}
    zero = bool(os.environ.get("SPACES_ZERO_GPU"))
    gpus = _lent() if zero else () if "+cpu" in (packages["torch"] or "+cpu") else _gpus()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=_cores(),
        memory_bytes=_memory(),
        instructions=_instructions(),
        gpus=gpus,
        compiler=shutil.which(os.environ.get("CXX", "g++")) and Path(os.environ.get("CXX", "g++")).name,
        python=platform.python_version(),
        packages=packages,
        caches=caches(),
        zero_gpu=zero,
        counters=counters(len(gpus)),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def caches(root: Path = CACHES) -> dict[str, int]:
    """Bytes of L1d, L2 and L3 as the first core sees them; empty where the system does not say."""
    found = {}
    for index in sorted(root.glob("index*")):
        try:
            level, kind, text = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            size = int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0)
        except (OSError, ValueError):
            continue
        if kind != "Instruction":
            found["L1d" if level == "1" else f"L{level}"] = size
    return found


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.lower().startswith(key):
            return line.partition(":")[2].strip()
    return ""


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> tuple[str, ...]:
    flags = set((_cpuinfo("flags") or _cpuinfo("features")).split())
    return tuple(name for name in INSTRUCTIONS if name in flags)


def _cgroup(name: str) -> str:
    """A container may own less than the machine has."""
    path = Path("/sys/fs/cgroup") / name
    return path.read_text().split()[0] if path.exists() else "max"


def _cores() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max")
    return available if quota == "max" else max(1, min(available, round(int(quota) / 100_000)))


def _memory() -> int:
    total, limit = psutil.virtual_memory().total, _cgroup("memory.max")
    return total if limit == "max" else min(total, int(limit))


def _lent() -> tuple[Gpu, ...]:
    """On ZeroGPU the package `spaces` imports torch and lets it tell of the GPU that is lent; here nobody else does."""
    torch = sys.modules.get("torch")
    if not torch or not torch.cuda.is_available():
        return ()
    found = torch.cuda.get_device_properties(0)
    return (Gpu(found.name, found.total_memory, f"{found.major}.{found.minor}", driver=""),)


def _gpus() -> tuple[Gpu, ...]:
    if not shutil.which("nvidia-smi"):
        return ()
    query = "--query-gpu=name,memory.total,compute_cap,driver_version"
    try:
        answer = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (subprocess.SubprocessError, OSError):
        return ()
    rows = (line.split(", ") for line in answer.stdout.strip().splitlines())
    with suppress(ValueError):  # "[N/A]" where a driver does not tell, or a message instead of a table
        return tuple(Gpu(name, int(float(mib)) * 2**20, cap, driver) for name, mib, cap, driver in rows)
    return ()
