"""What code shows besides text, as an agent and a program can use it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import PIL.Image
import pytest
from smolagents import FinalAnswerTool

from sandkernel import LocalExecutor
from sandkernel.sandbox.presentation import reduced

if TYPE_CHECKING:
    from collections.abc import Iterator


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


BUNDLE = """
class Bundle:
    def __init__(self, **formats):
        self.formats = {name.replace("__", "/").replace("_", "."): text for name, text in formats.items()}
    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.formats
class Displayed(Bundle):
    def _ipython_display_(self):
        display(self.formats, raw=True)
layout = {"title": "Sales", "template": {"data": "x" * 9000}}
figure = {"data": [{"x": [1, 2], "type": "bar"}], "layout": layout}
formats = {"application/vnd.plotly.v1+json": figure, "text/html": "<div><script>draw()</script></div>"}
plotly = Bundle(); plotly.formats = formats
shown = Displayed(); shown.formats = formats
vega = Bundle(text__plain="<VegaLite 5 object>")
vega.formats["application/vnd.vegalite.v5+json"] = {"mark": "bar"}
several = Bundle(text__html="<b>html</b>", text__markdown="**markdown**", text__plain="<object>")
plain = Bundle(text__html="<b>html</b>", text__plain="html")
empty = Bundle(text__html="<script>1</script>", text__plain="<Nothing at 0x7f>")
wrong = Bundle(); wrong.formats = {"text/html": ["<b>"], "text/markdown": {"a": 1}, "text/latex": 3}
from IPython.display import *
import pandas, numpy
frame = pandas.DataFrame({"n": [1, 2]}, index=["a", "b"])
"""
FIGURE = '{"data": [{"x": [1, 2], "type": "bar"}], "layout": {"title": "Sales"}}'
PRESENTED = [
    ("HTML('<h1>One</h1><p>two <b>three</b></p>')", "One\n\ntwo three"),
    ("HTML('<table><tr><th></th><th>n</th></tr><tr><th>a</th><td>1</td></tr></table>')", "n\na | 1"),
    (
        "HTML('<style>b {}</style><!-- x --><ul><li>1 &lt; 2<li>b<br>c</ul><pre>x\\n  y</pre>')",
        "- 1 < 2\n- b\nc\n\nx\n  y",
    ),
    ("Markdown('# One\\n\\n*two*')", "# One\n\n*two*"),
    ("Latex('$x^2$')", "$x^2$"),
    ("Math('x^2')", "$\\displaystyle x^2$"),
    ("JSON({'a': [1, 'é']})", '{"a": [1, "é"]}'),
    ("SVG('<svg><text>hi</text></svg>')", "<svg><text>hi</text></svg>"),
    ("plotly", FIGURE),
    ("shown", FIGURE),
    ("vega", '{"mark": "bar"}'),
    ("several", "**markdown**"),
    ("frame.style.format('{:.1f}')", "n\na | 1.0\nb | 2.0"),
]


@pytest.fixture(scope="module")
def presenting() -> Iterator[LocalExecutor]:
    with LocalExecutor(timeout=60, max_logs_length=300) as executor:
        executor(BUNDLE)
        yield executor


@pytest.mark.parametrize(("code", "text"), PRESENTED)
def test_what_is_no_text_is_presented_as_one(presenting: LocalExecutor, code: str, text: str) -> None:
    """As the last expression, and displayed; the bundle stays whole beside it."""
    assert presenting(code).output.strip() == text.strip()
    assert presenting(code + ";").output is None or code == "shown"
    displayed = presenting(f"display({code})\nprint('also')")
    assert displayed.logs == f"also\n{displayed.output}\n"
    assert displayed.output.strip() == text.strip()
    assert len(presenting.last_execution.results[0].data) >= 2 - (code == "shown")
    assert presenting(f"display({code}, {code})\n6 * 7").output == "42"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("plain", "html"),
        ("'<b>text</b>'", "'<b>text</b>'"),
        ("frame", "   n\na  1\nb  2"),
        ("frame['n']", "a    1\nb    2\nName: n, dtype: int64"),
        ("numpy.arange(3)", "array([0, 1, 2])"),
        ("empty", "<Nothing at 0x7f>"),
        ("Javascript('1')", "<IPython.core.display.Javascript object>"),
        ("print", "<function print(*args, sep=' ', end='\\n', file=None, flush=False)>"),
        ("1", "1"),
        ("None", None),
    ],
)
def test_what_python_says_stays_as_it_is(presenting: LocalExecutor, code: str, text: str | None) -> None:
    assert presenting(code).output == text


def test_formats_of_other_types_than_theirs_are_left_alone(presenting: LocalExecutor) -> None:
    assert re.fullmatch(r"<__main__\.Bundle at 0x[0-9a-f]+>", presenting("wrong").output)
    displayed = presenting(
        "display({'text/html': {'a': 1}, 'text/plain': ['x'], 'application/json': '['}, raw=True)"
    )
    assert displayed.output == '"["'


@pytest.mark.parametrize(
    "code",
    [
        "plt.plot([1, 2])",
        "plt.title('hi')",
        "plt.hist([1, 2, 2])",
        "plt.bar([1, 2], [3, 4])",
        "plt.scatter([1], [2])",
        "plt.gca()",
        "plt.subplots(2)",
        "plt.imshow([[1, 2]])",
        "frame.plot()",
        "frame.plot(subplots=True)",
        "plt.plot([1, 2])\nplt.show()",
        "plt.figure().add_subplot(projection='3d')",
    ],
)
def test_what_a_plot_returns_is_the_plot(presenting: LocalExecutor, code: str) -> None:
    output = presenting(f"import matplotlib.pyplot as plt\n{code}").output
    assert isinstance(output, PIL.Image.Image)


def test_an_object_beside_a_plot_is_itself(presenting: LocalExecutor) -> None:
    code = "import matplotlib.pyplot as plt\nlines = plt.plot([1, 2])\n"
    assert presenting(code + "'plt'").output == "'plt'"
    assert presenting(code + "object()").output.startswith("<object at 0x")
    assert presenting(code + "HTML('<p>hi</p>')").output == "hi"
    # Where no image was displayed, it is what Python says.
    assert presenting(code + "plt.close('all'); lines").output.startswith("[<matplotlib.lines.Line2D")


def test_a_final_answer_is_not_displayed(presenting: LocalExecutor) -> None:
    presenting.send_tools({"final_answer": FinalAnswerTool()})
    result = presenting("print('before')\nfinal_answer(7)")
    assert (result.output, result.logs) == (7, "before\n")


def test_what_is_presented_is_bounded(presenting: LocalExecutor) -> None:
    for code in ("JSON(list(range(10**6)))", "HTML('<p>x' * 10**6)", "Markdown('x' * 10**6)"):
        output = presenting(code).output
        assert output.endswith("\n[... the rest is left out ...]")
        assert len(output) < 400


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<!--",
        "<a ",
        "<script>",
        "&#",
        "<b>x</b> ",
        "<pre>",
        "<td>",
        "<p>",
        "&ampx",
        "<pre>\n",
        "<!",
        "</",
        "<li>",
    ],
)
def test_no_page_takes_the_time_of_its_square(unit: str) -> None:
    def seconds(length: int) -> float:
        began = time.process_time()
        reduced(unit * (length // len(unit)))
        return time.process_time() - began

    # Sixteen times the length: 256 times the time, if it were so.
    assert seconds(1 << 18) < 100 * max(seconds(1 << 14), 0.002)
    assert len(reduced("<x" + "-" * (1 << 18))) <= 1 << 18
