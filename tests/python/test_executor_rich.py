"""What code shows besides text, as an agent and a program can use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import PIL.Image
import pytest

if TYPE_CHECKING:
    from sandkernel import LocalExecutor


def test_a_figure_that_nobody_shows_is_not_lost(executor: LocalExecutor) -> None:
    output = executor("import matplotlib.pyplot as plt\nlines = plt.plot([1, 3, 2])\nprint('drawn')")
    assert isinstance(output.output, PIL.Image.Image)
    assert len(output.output.convert("L").getcolors()) > 10
    assert "drawn" in output.logs
    assert executor("plt.get_fignums()").output == "[]"
    final = executor("figure = plt.figure(figsize=(1, 1)); figure.add_subplot(); plt.close(); figure").output
    assert isinstance(final, PIL.Image.Image)


def test_a_frame_is_text_for_the_model_and_whole_for_the_program(executor: LocalExecutor) -> None:
    output = executor("import pandas\npandas.DataFrame({'n': [1, 2]}, index=['a', 'b'])")
    assert output.output == "   n\na  1\nb  2"
    (result,) = executor.last_execution.results
    assert "<table" in result.html


@pytest.mark.parametrize(
    ("name", "mime", "text"),
    [
        ("HTML", "text/html", "<b>1</b>"),
        ("SVG", "image/svg+xml", "<svg><g/></svg>"),
        ("Latex", "text/latex", "$x^2$"),
        ("Markdown", "text/markdown", "# One"),
        ("Javascript", "application/javascript", "1"),
    ],
)
def test_other_kinds_are_in_the_bundle(executor: LocalExecutor, name: str, mime: str, text: str) -> None:
    executor(f"from IPython.display import *\ndisplay({name}({text!r}))")
    (result,) = executor.last_execution.results
    assert result.data[mime].strip() == text


def test_json_is_data(executor: LocalExecutor) -> None:
    executor("from IPython.display import *\ndisplay(JSON({'a': [1]}))")
    assert executor.last_execution.results[0].data["application/json"] == {"a": [1]}


def test_displays_are_updated(executor: LocalExecutor) -> None:
    executor("from IPython.display import *\nfor n in range(3): display(n, display_id='it', update=n > 0)")
    assert [result.text for result in executor.last_execution.results] == ["2"]


def test_progress_bars_are_folded_as_a_terminal_does(executor: LocalExecutor) -> None:
    code = "import sys\nfor n in range(500): sys.stdout.write(f'\\r{n}% of it'); sys.stdout.flush()\n"
    output = executor(code + "print('\\rend\\nnext\\r\\nabc\\rX')")
    assert output.logs == "end% of it\nnext\nXbc\n"
    assert executor.last_execution.stdout.count("%") == 500
