"""What code shows besides text, as an agent and a program can use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import PIL.Image
import pytest
from smolagents import FinalAnswerTool

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


CLEARED = """
from IPython.display import clear_output
print('old')
display('gone')
clear_output()
for step in range(3):
    clear_output(wait=True)
    print('step', step)
"""


def test_the_model_is_not_shown_what_the_code_cleared_and_nothing_of_it_is_lost(
    executor: LocalExecutor,
) -> None:
    assert executor(CLEARED).logs == "step 2\n"
    execution = executor.last_execution
    assert execution.screen == "step 2\n"
    assert execution.logs == "old\nstep 0\nstep 1\nstep 2\n"
    assert [result.text for result in execution.results] == ["'gone'"]
    assert execution.cleared_results == 1


def test_a_final_answer_stands_where_the_output_is_cleared(executor: LocalExecutor) -> None:
    executor.send_tools({"final_answer": FinalAnswerTool()})
    code = "try:\n    final_answer(42)\nexcept BaseException:\n    clear_output()\n    print('cleared')"
    result = executor(code)
    assert (result.output, result.is_final_answer, result.logs) == (42, True, "cleared\n")


def test_an_execution_shows_itself_in_a_notebook_and_runs_nothing_there(executor: LocalExecutor) -> None:
    executor(
        "from IPython.display import HTML\nfrom PIL import Image\nprint('<b>printed</b>')\n"
        "display(HTML('<script>alert(1)</script>'))\ndisplay(Image.new('RGB', (2, 2)))\n6 * 7"
    )
    bundle = executor.last_execution._repr_mimebundle_(include=None, exclude=None)
    assert bundle["text/plain"].startswith("<b>printed</b>\n")
    assert "42" in bundle["text/plain"]
    page = bundle["text/html"]
    assert "<script" not in page
    assert "<pre>&lt;b&gt;printed&lt;/b&gt;\n</pre>" in page
    assert '<img src="data:image/png;base64,' in page


def test_a_picture_that_is_no_base64_stays_out_of_the_page(executor: LocalExecutor) -> None:
    executor("display({'image/png': '\"><script>alert(1)</script>', 'text/plain': 'text'}, raw=True)")
    assert "<script" not in executor.last_execution._repr_mimebundle_()["text/html"]
