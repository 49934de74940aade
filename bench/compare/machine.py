"""What the figures depend on: the CPU, the versions of everything, the commit."""

import importlib.metadata
import os
import platform
import re
import subprocess
import tomllib
from pathlib import Path

PACKAGES = (
    "sentence-transformers",
    "transformers",
    "torch",
    "onnxruntime",
    "flashrank",
    "fastembed",
    "tokenizers",
    "numpy",
)
CRATES = ("rten", "candle-core", "candle-transformers", "tokenizers")
# Those that decide which kernels can run.
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


def describe(root, cores):
    """Everything about machine and build as one object."""
    info = Path("/proc/cpuinfo").read_text()
    flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", info, re.MULTILINE)[1].split())
    status = output(["git", "-C", str(root), "status", "--porcelain"])
    return {
        "cpu": cpu_name(info),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": sorted(cores),
        "cores_of_machine": os.cpu_count(),
        "siblings": {core: siblings(core) for core in sorted(cores)},
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg(),
        "commit": output(["git", "-C", str(root), "rev-parse", "HEAD"]),
        "changed_since_commit": bool(status),
        "versions": versions(root),
    }


def cpu_name(info):
    """The name of the CPU as Linux gives it; the architecture where it gives none."""
    found = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def siblings(core):
    """The hardware threads that share the core, as Linux writes them."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    return path.read_text().strip() if path.exists() else "unknown"


def versions(root):
    """Python, its packages, the Rust compiler, the Rust peers."""
    lock = root / "bench" / "compare" / "rust" / "Cargo.lock"
    crates = tomllib.loads(lock.read_text())["package"]
    return {
        "python": platform.python_version(),
        "rustc": output(["rustc", "--version"], cwd=root).removeprefix("rustc "),
        **{name: package_version(name) for name in PACKAGES},
        **{f"{c['name']} (crate)": c["version"] for c in crates if c["name"] in CRATES},
    }


def package_version(name):
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def output(command, cwd=None):
    """What a command prints, or `unknown` where it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
