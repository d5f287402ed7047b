"""The code that runs inside the kernel, apart from any kernel."""

from __future__ import annotations

import ast
import importlib.resources

import pytest

from sandkernel.kernel_modules import MODULES


@pytest.mark.parametrize(("package", "file"), MODULES.values())
def test_it_is_python_3_8(package: str, file: str) -> None:
    source = importlib.resources.files(package).joinpath(file).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    imports = {
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }
    assert not imports & {"sandkernel", "smolagents"}
