"""From imports to requirements."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sandkernel import GatewayExecutor, KernelExecutor, LocalExecutor, ModalExecutor, SandboxPool
from sandkernel.exceptions import ConfigurationError
from sandkernel.packages import DISTRIBUTIONS, requirements
from sandkernel.providers.local import LocalSandbox, installer
from sandkernel.providers.modal.definition import Definition

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ([], []),
        (["numpy"], ["numpy"]),
        (["os", "os.path", "json", "xml.etree.ElementTree", "__future__", "datetime"], []),
        (["*", "numpy.*", "os.*", "  pandas  "], ["numpy", "pandas"]),
        (["numpy.random", "numpy.linalg", "numpy"], ["numpy"]),
        (["PIL", "PIL.Image", "pillow"], ["pillow"]),
        (
            ["cv2", "sklearn.linear_model", "yaml", "bs4"],
            ["opencv-python-headless", "scikit-learn", "PyYAML", "beautifulsoup4"],
        ),
        (
            [
                "dotenv",
                "Crypto.Cipher",
                "dateutil",
                "skimage",
                "fitz",
                "docx",
                "pptx",
                "serial",
                "git",
                "jwt",
            ],
            [
                "python-dotenv",
                "pycryptodome",
                "python-dateutil",
                "scikit-image",
                "PyMuPDF",
                "python-docx",
                "python-pptx",
                "pyserial",
                "GitPython",
                "PyJWT",
            ],
        ),
        (["smolagents", "smolagents.tools", "smolagents[toolkit]"], []),
        (["numpy>=2", "requests[socks]>=2.31,<3"], ["numpy>=2", "requests[socks]<3,>=2.31"]),
        (["PIL>=11"], ["pillow>=11"]),
        (['tomli; python_version < "3.11"'], ['tomli; python_version < "3.11"']),
        (["numpy", "numpy>=2", "NumPy<3", "numpy[x]"], ["numpy[x]<3,>=2"]),
        (["scikit-learn", "sklearn", "scikit_learn"], ["scikit-learn"]),
        (["b", "a", "b"], ["b", "a"]),
        (
            ["google.cloud.storage", "google.cloud.storage.blob", "google.protobuf.message", "google.genai"],
            ["google-cloud-storage", "protobuf", "google-genai"],
        ),
        (["google.cloud.bigquery>=3"], ["google-cloud-bigquery>=3"]),
        (
            ["azure.storage.blob.aio", "azure.identity", "azure.mgmt.compute.models"],
            ["azure-storage-blob", "azure-identity", "azure-mgmt-compute"],
        ),
        (["ruamel.yaml", "zope.interface>=6"], ["ruamel-yaml", "zope-interface>=6"]),
        (["keyrings.alt>=5"], ["keyrings.alt>=5"]),
    ],
)
def test_imports_become_requirements(imports: list[str], expected: list[str]) -> None:
    assert requirements(imports) == expected


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "--index-url=https://example.org",
        "-e .",
        "./package",
        "../package",
        "/tmp/package.whl",
        "numpy; rm -rf /",
        "numpy && curl example.org",
        "$(touch x)",
        "numpy\n--index-url https://example.org",
        "numpy pandas",
        "numpy>=",
        "numpy @ https://example.org/numpy.whl",
        "git+https://example.org/x.git",
        "google",
        "google.cloud",
        "google.unheard_of",
        "azure",
        "PIL>=",
        None,
        3,
    ],
)
def test_what_is_no_requirement_is_refused_by_name(bad: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        requirements(["numpy", bad])
    assert repr(bad) in str(caught.value)


NO_TEXTS = ["six", "", b"six", bytearray(b"six"), None, 3, {"six": 1}, ["six", 3], [b"six"], slice(3)]


@pytest.mark.parametrize("given", NO_TEXTS, ids=repr)
def test_what_is_no_sequence_of_texts_is_refused_by_all_that_take_one(given: Any) -> None:
    """No index is asked for packages of one letter, and nothing is booted first."""
    url = "http://127.0.0.1:9"

    def fail() -> Any:
        pytest.fail("a sandbox is booted")

    takers: list[Callable[[], object]] = [
        lambda: requirements(given),
        lambda: installer.parse(given),
        lambda: LocalSandbox(given),
        lambda: LocalExecutor(given),
        lambda: KernelExecutor(fail, given),
        lambda: KernelExecutor(fail, additional_imports=given, install=False),
        lambda: GatewayExecutor(given, url=url),
        lambda: ModalExecutor(given),
        lambda: ModalExecutor.from_id("sb-1", given),
        lambda: ModalExecutor.from_name("name", given),
        lambda: Definition.of({}, {}, given, app_name="app", port=8888),
        lambda: asyncio.run(LocalExecutor.acreate(given)),
        lambda: asyncio.run(ModalExecutor.acreate(given)),
        lambda: asyncio.run(ModalExecutor.afrom_id("sb-1", given)),
    ]
    for take in takers:
        with pytest.raises(ConfigurationError, match="sequence of texts"):
            take()
    with (
        SandboxPool(1, lambda: LocalExecutor(given)) as pool,
        pytest.raises(ConfigurationError, match="sequence of texts"),
    ):
        pool.acquire(30)


@pytest.mark.parametrize("given", NO_TEXTS, ids=repr)
def test_an_executor_takes_no_text_for_a_sequence(executor: LocalExecutor, given: Any) -> None:
    with pytest.raises(ConfigurationError, match="sequence of texts"):
        executor.install_packages(given)
    with pytest.raises(ConfigurationError, match="sequence of texts"):
        asyncio.run(executor.ainstall_packages(given))
    with pytest.raises(ConfigurationError, match="sequence of texts"):
        executor.run_many(given)
    with pytest.raises(ConfigurationError, match="sequence of texts"):
        asyncio.run(executor.arun_many(given))
    assert executor("6 * 7").output == "42"


@pytest.mark.parametrize("given", ["search", b"search", 3, ["search"]], ids=repr)
def test_tools_and_variables_are_mappings(executor: LocalExecutor, given: Any) -> None:
    for send in (executor.send_tools, executor.send_variables):
        with pytest.raises(ConfigurationError, match="is a mapping of"):
            send(given)
    for asend in (executor.asend_tools, executor.asend_variables):
        with pytest.raises(ConfigurationError, match="is a mapping of"):
            asyncio.run(asend(given))


def test_a_generator_of_imports_is_read_once() -> None:
    with LocalExecutor(name for name in ["os", "json"]) as another:
        assert another.additional_imports == ["os", "json"]


def test_every_name_of_the_table_is_itself_a_requirement_that_keeps_its_name() -> None:
    for module, distribution in DISTRIBUTIONS.items():
        assert requirements([module]) == [distribution]
        assert requirements([distribution]) in ([distribution], [DISTRIBUTIONS.get(distribution)])
