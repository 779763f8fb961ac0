"""Run the notebooks without a browser: for charts, tests and the outputs that are committed.

python -m cachelab.lab.notebooks run      all, at quick scale; --scale full --write before a commit
python -m cachelab.lab.notebooks nav      previous · index · next at the top and bottom of each
python -m cachelab.lab.notebooks table    the table of notebooks in README.md
"""

import argparse
import copy
import os
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import zmq
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbclient.output_widget import OutputWidget
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from cachelab import _check
from cachelab._limits import raise_open_files
from cachelab._streams import run_command
from cachelab.errors import CachelabError

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
# And where charts of that scale belong.
SCALES = {"quick": ROOT / "charts" / "local", "full": ROOT / "charts"}
TABLE = ("<!-- notebooks -->", "<!-- /notebooks -->")

_PROGRAM = "python -m cachelab.lab.notebooks"
_WIDGET = "application/vnd.jupyter.widget-view+json"
_PERSONAL = (
    "JUPYTER",
    "JPY_",
    "IPYTHON",
    "MPL",
    "MATPLOTLIB",
    "PYTHONSTARTUP",
    "PYTHONWARNINGS",
    "COLUMNS",
    "LINES",
)
_MEANINGLESS = {
    # The file name that a cell has in warnings and tracebacks.
    r"[^\s\"]*/ipykernel_\d+/\d+\.py": "<cell>",
    r"(?<=\")[^\"\n]*/(site-packages|lib/python3\.\d+)/": "",  # where packages are installed
    # The same in asyncio's log: "created at /…".
    r"(?<=\bat )/[^\s\"]*/(site-packages|lib/python3\.\d+)/": "",
    re.escape(f"{ROOT}/"): "",
    r"\bat 0x[0-9a-fA-F]{6,}": "at 0x…",  # the address in a default repr
    r"[^\n\r]*\r(?=[^\n])": "",  # what a progress bar has overwritten
}


_NUMBERED = re.compile(r"\d\d[a-z]?_")

# What running a cell raises; RuntimeError: the kernel is dead.
_FAILURES = (CellExecutionError, CellTimeoutError, RuntimeError)


class NotebookError(CachelabError):
    """A notebook could not be run or rewritten; the message names it and, if it can, the cell."""


def found(folder: Path = NOTEBOOKS) -> list[Path]:
    """Return the numbered notebooks of ``folder``, in order: 02, its second half 02b, 03."""
    return sorted(path for path in folder.glob("*.ipynb") if _NUMBERED.match(path.name))


def numbered() -> dict[str, Path]:
    """Return the notebooks of this clone by their numbers, in order.

    Raises:
        NotebookError: There are none.
    """
    paths = found()
    if not paths:
        raise NotebookError(
            f"There are no notebooks in {NOTEBOOKS}: an installed package holds none, "
            "run this in a clone of the project"
        )
    return {number(path): path for path in paths}


def number(path: Path) -> str:
    """Return the number of a notebook or of what belongs to it: "02" or "02b"."""
    return path.name.partition("_")[0]


def execute(
    path: Path,
    scale: str = "quick",
    charts: Path | None = None,
    timeout: float = 120,
    extra: Mapping[str, str] | None = None,
    solve: bool = False,
) -> NotebookNode:
    """Run a copy of the notebook in a kernel of this interpreter and return it with its outputs.

    The file stays as it is, the kernel works in its folder, the user's Jupyter and IPython settings
    play no part. Cells tagged ``raises-exception`` may raise.

    Args:
        path: The notebook.
        scale: "quick" or "full".
        charts: The folder into which named figures are saved; None: nowhere.
        timeout: Seconds that each cell may take.
        extra: What is added to the kernel's environment.
        solve: Follow each check cell by the answers that stand beside its solution, wrong ones
            first, then right ones, then the solution: each followed by the check once more, tagged
            ``check-wrong`` or ``check-solved``, whose metadata has the ``answer``'s file and in
            ``took`` the seconds that it ran.

    Raises:
        NotebookError: Any other error, a time-out or the kernel's death; the message has the
            cell's number (from 1), source and traceback.
    """
    _check.choice("scale", scale, tuple(SCALES))
    timeout = _check.number("timeout", timeout, above=0, high=_check.LONGEST_WAIT)
    path, at = Path(path).resolve(), 0
    nb = nbformat.read(path, as_version=4)
    if solve:
        nb.cells = _with_solutions(nb.cells, path.parent / "solutions")
    raise_open_files()  # the kernel inherits the limit
    with tempfile.TemporaryDirectory(
        prefix="cachelab-run-", dir=_short_folder(), ignore_cleanup_errors=True
    ) as own:
        # ipc needs no ports, hence no clashes; its path must be absolute because the kernel works
        # in another folder.
        kernel = AsyncKernelManager(
            transport="ipc", connection_file=f"{own}/k", kernel_spec_manager=_ThisPython()
        )
        client = NotebookClient(nb, kernel, timeout=timeout, record_timing=False)
        client.widget_registry = {"@jupyter-widgets/output": {"OutputModel": _PromptOutput}}
        env = _environment(own, scale, charts) | dict(extra or {})
        try:
            with open(f"{own}/log", "wb") as log, client.setup_kernel(
                cleanup_kc=True, cwd=str(path.parent), env=env, stdout=log, stderr=log
            ):  # fmt: skip
                for at, cell in enumerate(nb.cells, 1):
                    began = time.perf_counter()
                    _run_cell(client, cell, at)
                    if "answer" in cell.metadata:
                        cell.metadata.took = time.perf_counter() - began
        except _FAILURES as error:
            reason = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
            if not at:
                raise NotebookError(
                    f"{path.name}: {reason}\n\n{Path(own, 'log').read_text()}"
                ) from None
            source = "" if cell.source in reason else f"{cell.source}\n\n"
            raise NotebookError(f"{path.name}, cell {at}:\n\n{source}{reason}") from None
    return nb


def clean(nb: NotebookNode) -> NotebookNode:
    """Return a copy without what differs from run to run and means nothing.

    That is addresses, timings, versions. Widgets go too, they are nothing without a kernel: the
    picture that a panel carries stays in its place.
    """
    nb = copy.deepcopy(nb)
    nb.metadata = NotebookNode(
        kernelspec={
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        language_info={"name": "python"},
        cachelab=nb.metadata.get("cachelab", {}),
    )
    for cell in nb.cells:
        for key in ("execution", "collapsed", "scrolled", "trusted"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = _calm(without_widgets(cell.outputs))
    return nb


def without_widgets(outputs: Iterable[Any]) -> list[Any]:
    """Return outputs in which widgets give way to the pictures that they carry, if they do."""
    left = []
    for out in outputs:
        if _WIDGET in out.get("data", {}):
            if "image/png" not in out["data"]:
                continue
            out["data"].pop(_WIDGET)
        left.append(out)
    return left


def run_all(
    paths: Iterable[Path],
    scale: str = "quick",
    charts: Path | None = None,
    write_outputs: bool = False,
    timeout: float = 120,
    progress: Callable[..., object] = print,
    ended: Callable[[Path], object] = lambda path: None,
) -> list[NotebookError]:
    """Run notebooks one after the other, as timings must, and return the failures.

    A failure stops only its notebook.

    Args:
        paths: The notebooks.
        scale: "quick" or "full".
        charts: Where charts go: by default charts/local, which git ignores, at quick scale and
            charts at full scale.
        write_outputs: Save each notebook that ran with its cleaned outputs.
        timeout: Seconds that each cell may take.
        progress: Called like print.
        ended: Called with each notebook that has run or failed.
    """
    charts = Path(charts or SCALES[_check.choice("scale", scale, tuple(SCALES))])
    failures: list[NotebookError] = []
    cards = {path: card(path) for path in map(Path, paths)}
    minutes = [about["minutes"] for about in cards.values()]
    before, start = _drawn(charts), time.perf_counter()
    for done, (path, about) in enumerate(cards.items(), 1):
        progress(f"{done:2}/{len(cards)}  {about['label']:<40}", end="", flush=True)
        began, outcome = time.perf_counter(), ""
        try:
            _run_and_write(path, scale, charts, timeout, write_outputs)
        except NotebookError as error:
            failures.append(error)
            outcome = "  failed"
        ended(path)
        now = time.perf_counter()
        left = _spoken((now - start) * sum(minutes[done:]) / sum(minutes[:done]))
        rest = f"   about {left} left" if minutes[done:] else ""
        progress(f"{_spoken(now - began):>6}{outcome}{rest}")
    for failure in failures:
        progress(f"\n{failure}")
    fresh, took = len(_drawn(charts) - before), _spoken(time.perf_counter() - start)
    progress(f"\n{len(cards) - len(failures)} of {len(cards)} notebooks ran in {took}.")
    progress(f"Charts drawn: {fresh}, each as SVG, PNG and CSV in {os.path.relpath(charts)}")
    return failures


def navigation(folder: Path = NOTEBOOKS, write: bool = True) -> list[Path]:
    """Return the notebooks whose line "← previous · index · next →" is stale, and write it there.

    The line fits the files found. It is the first and the last cell, both tagged ``nav``; labels
    are the headings, cut at the dash.
    """
    paths, outdated = found(folder), []
    links = [f"[{card(path)['label']}]({path.name})" for path in paths]
    for i, path in enumerate(paths):
        back = [f"← {links[i - 1]}"] if i else []
        on = [f"{link} →" for link in links[i + 1 : i + 2]]
        line = " · ".join([*back, "[index](../README.md)", *on])
        top, bottom = (
            new_markdown_cell(line, id=f"nav-{end}", metadata={"tags": ["nav"]})
            for end in ("top", "end")
        )
        nb = nbformat.read(path, as_version=4)
        cells = [top, *(cell for cell in nb.cells if "nav" not in tags(cell)), bottom]
        if cells != nb.cells:
            outdated.append(path)
            nb.cells = cells
            if write:
                nbformat.write(nb, path)
    return outdated


def index_table(folder: Path = NOTEBOOKS) -> str:
    """Return the Markdown table of the notebooks: title with a link, question, minutes."""
    rows = ["| notebook | question | minutes |", "|---|---|---:|"]
    for path in found(folder):
        about = card(path)
        link = f"[{about['label']}]({folder.name}/{path.name})"
        rows.append(f"| {link} | {about['question']} | {about['minutes']} |")
    return "\n".join(rows)


def update_table(
    readme: Path = ROOT / "README.md", folder: Path = NOTEBOOKS, write: bool = True
) -> bool:
    """Return whether the table between the markers of ``readme`` is stale, and write it there."""
    text = readme.read_text(encoding="utf-8")
    start, end = (text.find(marker) for marker in TABLE)
    if not 0 <= start < end:
        lines = f"{TABLE[0]} and {TABLE[1]}"
        raise NotebookError(
            f"{readme.name} needs the lines {lines}, in this order, around its table"
        )
    fresh = f"{text[:start]}{TABLE[0]}\n{index_table(folder)}\n{text[end:]}"
    if write and fresh != text:
        readme.write_text(fresh, encoding="utf-8")
    return fresh != text


def card(path: Path) -> dict:
    """Return a notebook's label ("03 Cache-aside", from its heading), question, minutes and needs.

    What it needs are the notebooks that its sentence "You need" names, such as "02, 03".
    """
    nb = nbformat.read(path, as_version=4)
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# (.+)$", prose, re.M)
    label = heading[1].split(" — ")[0] if heading else path.stem.replace("_", " ")
    sentence = re.search(r"^\*\*You need:?\*\*(.*?)(\*\*|$)", prose, re.M)
    needs = ", ".join(sorted(set(re.findall(r"\b\d\d[a-z]?\b", sentence[1] if sentence else ""))))
    about = {"label": label, "question": "", "minutes": 15, "needs": needs}
    return about | nb.metadata.get("cachelab", {})


def code_digest(nb: NotebookNode) -> str:
    """Return a short digest of the notebook's code, which ties stored outputs to their code."""
    code = "\0".join(cell.source for cell in nb.cells if cell.cell_type == "code")
    return f"{zlib.crc32(code.encode()):08x}"


def minutes(nb: NotebookNode) -> float:
    """Return the minutes that a notebook takes somebody who reads all, waits, and tries everything.

    Words at 200 a minute, 4 seconds for each line of code that is not blank, 3 minutes for each
    exercise, and the ``seconds`` that the metadata of cells say one waits for them.
    """
    told = [cell for cell in nb.cells if "nav" not in tags(cell)]
    text = " ".join(cell.source for cell in told if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in told if cell.cell_type == "code")
    words = sum(bool(re.search(r"\w", word)) for word in text.split())
    lines = sum(bool(line.strip()) for line in code.splitlines())
    waits = sum(cell.metadata.get("seconds", 0) for cell in told)
    exercises = sum("exercise" in tags(cell) for cell in told)
    return words / 200 + (4 * lines + waits) / 60 + 3 * exercises


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 for a notebook that failed or is stale."""
    return run_command(_PROGRAM, partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="Run and tend the notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="run notebooks, one after the other, and save their charts"
    )
    which = "which to run, by number or path; all when none is named"
    run.add_argument("paths", nargs="*", type=_notebook, metavar="NOTEBOOK", help=which)
    run.add_argument(
        "--scale", choices=SCALES, default="quick", help="how much to measure (default: quick)"
    )
    run.add_argument(
        "--charts", type=Path, metavar="FOLDER", help="default: charts/local, at full scale charts"
    )
    run.add_argument("--write", action="store_true", help="save the outputs into the notebooks")
    written = {"nav": "the previous · index · next lines", "table": "the README's table"}
    check = "write nothing, exit with 1 when something is stale"
    for name, what in written.items():
        tend = commands.add_parser(name, help=f"write {what}")
        tend.add_argument("--check", action="store_true", help=check)
    args = parser.parse_args(argv)
    if args.command == "run":
        paths = args.paths or numbered().values()
        return int(bool(run_all(paths, args.scale, args.charts, args.write)))
    write = not args.check
    if args.command == "nav":
        stale = [path.name for path in navigation(write=write)]
    else:
        stale = ["README.md"] * update_table(write=write)
    outcome = "written" if write else "is stale"
    print("\n".join(f"{name} {outcome}" for name in stale) or "Nothing to do.")
    return int(bool(stale) and not write)


def _notebook(named: str) -> Path:
    path = next((path for path in found() if path.name.startswith(f"{named}_")), Path(named))
    if not path.is_file():
        numbers = ", ".join(map(number, found()))
        raise argparse.ArgumentTypeError(
            f"{named!r} is no notebook: name a file, or one of the numbers {numbers}"
        )
    return path


class _ThisPython(KernelSpecManager):
    """Knows one kernel, this interpreter, so that notebooks get the packages found here."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3 (ipykernel)", language="python")


class _PromptOutput(OutputWidget):
    """An Output widget that does not stall.

    It sends on the socket that nbclient polls, which can swallow a wake-up.
    """

    def _publish_msg(self, *args: Any, **kwargs: Any) -> None:
        super()._publish_msg(*args, **kwargs)
        # pyzmq's wake-ups are edge-triggered: look again.
        self.kernel_client.shell_channel.socket.get(zmq.EVENTS)


def _short_folder() -> str:
    """Return a folder for temporary files in which the names of sockets are short enough.

    Systems take 103 bytes at least, and a user's own folder may be deep.
    """
    longest = 103 - len("/cachelab-run-12345678/k-ipc-5")
    usual = tempfile.gettempdir()
    for folder in (usual, "/tmp", "/var/tmp"):
        if len(os.fsencode(folder)) <= longest and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise NotebookError(
        f"TMPDIR is too long for the names of sockets ({len(os.fsencode(usual))} bytes, "
        f"{longest} at most): name another folder, as TMPDIR=/tmp does"
    )


def _environment(own: str, scale: str, charts: Path | None) -> dict[str, str]:
    """Return this process's environment, but with settings and temporary files in ``own``.

    What is the user's taste is left out. A kernel that is killed tidies nothing: its files go with
    the folder.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((*_PERSONAL, "CACHELAB_CHARTS"))
    }
    env |= {f"JUPYTER_{kind}_DIR": own for kind in ("CONFIG", "DATA", "RUNTIME")}
    env |= {
        "IPYTHONDIR": f"{own}/ipython",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "CACHELAB_SCALE": scale,
        "TMPDIR": own,
    }
    if charts is not None:
        Path(charts).mkdir(parents=True, exist_ok=True)
        env["CACHELAB_CHARTS"] = str(Path(charts).resolve())
    return env


def _run_cell(client: NotebookClient, cell: NotebookNode, number: int) -> None:
    # Of an expected error a reader sees the last line, of any other an author sees all.
    mode = "Minimal" if "raises-exception" in tags(cell) else "Context"
    assert client.kc  # it has been set up
    client.kc.execute(f"%xmode {mode}", silent=True)
    try:
        error = run_sync(_outcome)(client, cell, number)
    except KeyboardInterrupt:
        client.shutdown_kernel = "immediate"  # who interrupts is in a hurry
        raise
    if error:
        raise error


async def _outcome(client: NotebookClient, cell: NotebookNode, number: int) -> Exception | None:
    """Run a cell and return its error.

    It is not raised: after an interrupt nobody is left to receive it, and asyncio would say so.
    """
    count = client.code_cells_executed + 1
    try:
        await client.async_execute_cell(cell, number - 1, execution_count=count)
    except _FAILURES as error:
        return error
    return None


def _run_and_write(
    path: Path, scale: str, charts: Path, timeout: float, write_outputs: bool
) -> None:
    source = path.read_bytes()
    nb = execute(path, scale, charts, timeout)
    if write_outputs:
        if path.read_bytes() != source:
            raise NotebookError(f"{path.name} was changed while it ran: run it again")
        nb.metadata.setdefault("cachelab", {})["outputs"] = {
            "scale": scale,
            "code": code_digest(nb),
        }
        nbformat.write(clean(nb), path)


def _with_solutions(cells: list[NotebookNode], folder: Path) -> list[NotebookNode]:
    solved = []
    for cell in cells:
        solved.append(cell)
        if "check" not in tags(cell):
            continue
        file = folder / cell.metadata["solution"]
        for kind, tag in (("wrong", "check-wrong"), ("other", "check-solved")):
            for answer in sorted(folder.glob(f"{file.stem}.{kind}*.py")):
                solved += _tried(cell, answer, kind, tag)
        solved += _tried(cell, file, "solution", "check-solved")
    return solved


def _tried(check: NotebookNode, answer: Path, kind: str, tag: str) -> Iterator[NotebookNode]:
    """Yield the cell of an answer, and its check; what a wrong one raises must not end the run."""
    source = answer.read_text(encoding="utf-8")
    may_raise = ["raises-exception"] if kind == "wrong" else []
    yield new_code_cell(source, metadata={"tags": [kind, *may_raise]})
    about = {"tags": [tag, *may_raise], "answer": answer.name}
    yield new_code_cell(check.source, metadata={**check.metadata, **about})


def _calm(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Return outputs without meaningless text, neighbouring pieces of one stream joined."""
    calm: list[NotebookNode] = []
    for out in outputs:
        if out.output_type == "stream":
            joins = calm and calm[-1].output_type == "stream" and calm[-1].name == out.name
            out.text = _plain((calm.pop().text if joins else "") + out.text)
        elif out.output_type == "error":
            out.traceback = [_plain(line) for line in out.traceback]
        else:
            for kind in [kind for kind in out.data if kind.startswith("text/")]:
                out.data[kind] = _plain(out.data[kind])
        calm.append(out)
    return calm


def _plain(text: str) -> str:
    for pattern, instead in _MEANINGLESS.items():
        text = re.sub(pattern, instead, text)
    return text


def _drawn(folder: Path) -> set[tuple[Path, int]]:
    return {(path, path.stat().st_mtime_ns) for path in folder.glob("*.svg")}


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    raise SystemExit(main())
