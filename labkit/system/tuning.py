"""Environment variables that change how fast torch, its libraries or malloc work:
figures that were measured with other values are not compared."""

import hashlib
import json
import os

# From torch's documentation of its environment variables, and the names in its libraries.
FAMILIES = (
    *("TORCH_", "PYTORCH_", "ATEN_", "C10_", "FBGEMM_", "LRU_CACHE_CAPACITY", "KINETO_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "MKLDNN_", "DNNL_", "ONEDNN_", "OPENBLAS_", "BLIS_"),
    *("NCCL_", "GLOO_", "TP_", "UCX_"),
    *(
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "CUBLAS",
        "CUDNN_",
        "NVIDIA_TF32_OVERRIDE",
        "MIOPEN_",
        "HSA_",
        "HIP_",
    ),
    *("MALLOC_", "TCMALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTHONMALLOC", "PYTHONDEVMODE", "PYTHONTRACEMALLOC"),
)
# What labkit sets itself, so that no value from outside counts: threads by torch.set_num_threads, and the loopback as interface.
OURS = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "PYTORCH_NVML_BASED_CUDA_CHECK"}
# How long a thread of OpenMP that has nothing to do spins before it sleeps: GNU's counts turns (its default takes about a millisecond
# on a free core), LLVM's counts milliseconds. A spinning thread keeps the core from the one that it waits for, where another program
# has taken a core: two threads then fell to 2 to 3 % of their speed, and with these values to 40 %. On a free machine they cost up
# to a tenth (CONTRIBUTING.md has the measurement). Whoever sets one of the names keeps all of them.
WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
# What torchrun, conda and `import sklearn` set without being asked, and what changes no speed.
HARMLESS = {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "MKL_INTERFACE_LAYER", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
ABOUT_A_BUILD = ("_VERSION", "_HOME", "_DIR", "_ARCH_LIST", "_BUILD_NUMBER")  # as container images set them


def waiting_settings() -> dict[str, str]:
    """What to add to the environment of a process before it imports torch, so that its waiting threads soon sleep; nothing if the
    user has decided how they wait."""
    return {} if {"OMP_WAIT_POLICY", *WAITING} & os.environ.keys() else WAITING


def outside_settings() -> dict[str, str]:
    """The variables that change speed and were set outside labkit, by name; an empty value counts as none."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if value
        and WAITING.get(name) != value
        and name.startswith(FAMILIES)
        and name not in OURS | HARMLESS
        and not name.endswith(ABOUT_A_BUILD)
    }


def settings_mark() -> str:
    """The empty text if no such variable is set, else a short digest of them."""
    found = json.dumps(outside_settings())
    return "" if found == "{}" else f"+{hashlib.sha256(found.encode()).hexdigest()[:8]}"
