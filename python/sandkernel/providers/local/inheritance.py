"""The environment variables of this process that a local sandbox has, too: none that may hold a key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALLOWED", "PROXIES", "allowed"]

# Whole names, no beginnings of names: `NVIDIA_API_KEY` and `PYTHON_REGISTRY_TOKEN` begin like others.
_NAMES = (
    # Programs, and the libraries that an interpreter may need to start at all.
    "PATH LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH NIX_LD NIX_LD_LIBRARY_PATH",
    # Who, where and how: `getpass.getuser` asks for the first two.
    "USER LOGNAME SHELL TERM TMPDIR TZ TZDIR",
    # The locale.
    "LANG LANGUAGE LC_ALL LC_ADDRESS LC_COLLATE LC_CTYPE LC_IDENTIFICATION LC_MEASUREMENT LC_MESSAGES",
    "LC_MONETARY LC_NAME LC_NUMERIC LC_PAPER LC_TELEPHONE LC_TIME LOCALE_ARCHIVE LOCPATH",
    # Files of authorities to trust.
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE AWS_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH NIX_SSL_CERT_FILE NODE_EXTRA_CA_CERTS GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS UV_NATIVE_TLS UV_SYSTEM_CERTS",
    # The interpreter, and where it finds modules.
    "PYTHONPATH PYTHONHOME PYTHONUTF8 PYTHONIOENCODING PYTHONUNBUFFERED PYTHONHASHSEED PYTHONWARNINGS",
    "PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONFAULTHANDLER PYTHONMALLOC PYTHONNOUSERSITE",
    "PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONDEVMODE PYTHONINTMAXSTRDIGITS PYTHON_GIL PYTHON_JIT",
    "PYTHON_CPU_COUNT CONDA_PREFIX GDAL_DATA PROJ_DATA PROJ_LIB",
    # GPUs, and how many threads compute.
    "CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_HOME CUDA_PATH CUDA_ROOT CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING CUDA_CACHE_DISABLE CUDA_CACHE_MAXSIZE CUDA_CACHE_PATH",
    "CUDA_DEVICE_MAX_CONNECTIONS CUDA_FORCE_PTX_JIT CUDA_DISABLE_PTX_JIT",
    "CUDA_MANAGED_FORCE_DEVICE_ALLOC CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE CUDA_MPS_PINNED_DEVICE_MEM_LIMIT CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES NVIDIA_TF32_OVERRIDE PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HSA_OVERRIDE_GFX_VERSION XLA_FLAGS",
    "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMEXPR_NUM_THREADS NUMEXPR_MAX_THREADS",
    "POLARS_MAX_THREADS",
)
ALLOWED = frozenset(" ".join(_NAMES).split())
"""Names of variables that are taken as they are."""

PROXIES = frozenset(["http_proxy", "https_proxy", "ftp_proxy", "socks_proxy", "all_proxy", "no_proxy"])
"""Names of variables with proxies, which are known in capitals, too: they are taken without credentials."""

_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")


def allowed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that the processes of a local sandbox have.

    A proxy is taken without the name and password in its URL: whoever uses it is told by the proxy that it
    asks for them, and the host may give it whole by `environment=`.
    """
    taken = {name: value for name, value in environ.items() if name in ALLOWED}
    for name, value in environ.items():
        if name.lower() in PROXIES and name in (name.lower(), name.upper()):
            bare = _CREDENTIALS.sub("", value)
            # Without a scheme nobody knows where a password begins.
            if "@" not in bare:
                taken[name] = bare
    return taken
