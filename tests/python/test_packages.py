"""From imports to requirements."""

from __future__ import annotations

import pytest

from sandkernel.exceptions import ConfigurationError
from sandkernel.packages import DISTRIBUTIONS, requirements


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


def test_one_string_is_not_a_sequence_of_names() -> None:
    with pytest.raises(ConfigurationError, match="numpy"):
        requirements("numpy")


def test_every_name_of_the_table_is_itself_a_requirement_that_keeps_its_name() -> None:
    for module, distribution in DISTRIBUTIONS.items():
        assert requirements([module]) == [distribution]
        assert requirements([distribution]) in ([distribution], [DISTRIBUTIONS.get(distribution)])
