"""From the names that agents import to the packages that provide them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sandkernel import arguments
from sandkernel.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["is_local", "requirements"]

DISTRIBUTIONS = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "Cryptodome": "pycryptodomex",
    "MySQLdb": "mysqlclient",
    "OpenGL": "PyOpenGL",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cpuinfo": "py-cpuinfo",
    # The build for machines without a display: the other needs libraries that servers lack.
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dns": "dnspython",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "ffmpeg": "ffmpeg-python",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "github": "PyGithub",
    "gitlab": "python-gitlab",
    "googleapiclient": "google-api-python-client",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "kafka": "kafka-python",
    "ldap": "python-ldap",
    "magic": "python-magic",
    "markdown_it": "markdown-it-py",
    "mpl_toolkits": "matplotlib",
    "nacl": "PyNaCl",
    "osgeo": "GDAL",
    "paho": "paho-mqtt",
    "past": "future",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "pythoncom": "pywin32",
    "rest_framework": "djangorestframework",
    "serial": "pyserial",
    "shapefile": "pyshp",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "snappy": "python-snappy",
    "socks": "PySocks",
    "speech_recognition": "SpeechRecognition",
    "telegram": "python-telegram-bot",
    "tlz": "toolz",
    "umap": "umap-learn",
    "usb": "pyusb",
    "websocket": "websocket-client",
    "whisper": "openai-whisper",
    "wikipediaapi": "Wikipedia-API",
    "win32com": "pywin32",
    "wx": "wxPython",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}
"""Import names whose package has another name; case and `-`, `_` do not count as another."""

NAMESPACES = {
    "azure.storage.blob": "azure-storage-blob",
    "azure.storage.queue": "azure-storage-queue",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.cloud.pubsub_v1": "google-cloud-pubsub",
    "google.cloud.secretmanager": "google-cloud-secret-manager",
    "google.cloud.translate_v2": "google-cloud-translate",
    "google.genai": "google-genai",
    "google.generativeai": "google-generativeai",
    "google.oauth2": "google-auth",
    "google.protobuf": "protobuf",
}
"""Modules in namespaces that many packages share."""

PATTERNS = {
    "azure.ai": 3,
    "azure.keyvault": 3,
    "azure.mgmt": 3,
    "azure": 2,
    "backports": 2,
    "google.cloud": 3,
    "jaraco": 2,
    "ruamel": 2,
    "sphinxcontrib": 2,
    "zope": 2,
}
"""Namespaces whose packages are named like their modules: how many parts of a module's name that takes."""

SHARED = frozenset({name.partition(".")[0] for name in (*NAMESPACES, *PATTERNS)})
NOT_INSTALLED = frozenset({"smolagents"})


def requirements(imports: Iterable[str]) -> list[str]:
    """The packages to install for what agents may import.

    An import is a module's name as smolagents takes it (`numpy`, `sklearn.linear_model`, `os.*`, `*`) or a
    requirement (PEP 508: `numpy>=2`, `requests[socks]`, `tomli; python_version < "3.11"`), whose name may
    be that of a module too (`PIL>=11`). The names of modules are mapped to those of their packages; what
    the standard library has, `*` and `smolagents` need none. Anything that an installer could take for
    something else than a package's name is refused: options, paths, and direct references (`name @
    https://…`), which would install whatever stands there.

    Args:
        imports: Names of modules, or requirements.

    Returns:
        Valid requirements, in the order of the imports, each once.

    Raises:
        ConfigurationError: One is neither, and the message names it; or they are no sequence of texts.
    """
    merged: dict[tuple[str, str], Requirement] = {}
    for item in arguments.texts(imports, "additional_imports"):
        requirement = _requirement(item)
        if requirement is None:
            continue
        key = (canonicalize_name(requirement.name), str(requirement.marker or ""))
        same = merged.setdefault(key, requirement)
        same.extras |= requirement.extras
        same.specifier &= requirement.specifier
    return [str(requirement) for requirement in merged.values()]


def _requirement(item: str) -> Requirement | None:
    """The requirement for one import; `None` where there is nothing to install."""
    text = item.strip()
    while text.endswith(".*"):
        text = text[:-2]
    if text == "*" or text.partition(".")[0] in sys.stdlib_module_names:
        return None
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise ConfigurationError(
            f"{item!r} is neither a module nor a package requirement: {error}"
        ) from error
    if requirement.url is not None:
        raise ConfigurationError(f"{item!r} is a direct reference: only packages from an index are installed")
    root = requirement.name.partition(".")[0]
    if root in sys.stdlib_module_names or root in NOT_INSTALLED:
        return None
    requirement.name = _distribution(requirement, root)
    return requirement


def _distribution(requirement: Requirement, root: str) -> str:
    """The name of the package that has a module."""
    name = requirement.name
    if root in DISTRIBUTIONS:
        return DISTRIBUTIONS[root]
    if root not in SHARED:
        # A dotted name with a version is a package's own name: no module has one.
        return name if requirement.specifier else root
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        beginning = ".".join(parts[:length])
        if beginning in NAMESPACES:
            return NAMESPACES[beginning]
        needed = PATTERNS.get(beginning)
        if needed is not None and len(parts) >= needed:
            return "-".join(parts[:needed])
    raise ConfigurationError(f"{name!r} is a namespace of many packages: name the package that you need")


def is_local(module: str) -> bool:
    """Whether a module is of this machine alone: it is here, and no package has it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    folders = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    if any(Path(place).is_relative_to(folder) for place in places for folder in folders):
        return False
    return module not in importlib.metadata.packages_distributions()
