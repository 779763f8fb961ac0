"""Run the notebooks without a browser: for the charts, for the tests and for the outputs that are committed.

python -m cachelab.lab.notebooks run      all of them at quick scale; --scale full --write before a commit
python -m cachelab.lab.notebooks nav      previous · index · next at the top and bottom of each notebook
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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

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
from cachelab.errors import CachelabError

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
SCALES = {"quick": ROOT / "charts" / "local", "full": ROOT / "charts"}  # and where charts of that scale belong
TABLE = ("<!-- notebooks -->", "<!-- /notebooks -->")

_WIDGET = "application/vnd.jupyter.widget-view+json"
_PERSONAL = ("JUPYTER", "JPY_", "IPYTHON", "MPL", "MATPLOTLIB", "PYTHONSTARTUP", "PYTHONWARNINGS", "COLUMNS", "LINES")
_MEANINGLESS = {
    r"[^\s\"]*/ipykernel_\d+/\d+\.py": "<cell>",  # the file name that a cell has in warnings and tracebacks
    r"(?<=\")[^\"\n]*/(site-packages|lib/python3\.\d+)/": "",  # where packages are installed
    r"(?<=\bat )/[^\s\"]*/(site-packages|lib/python3\.\d+)/": "",  # the same in asyncio's log: "created at /…"
    re.escape(f"{ROOT}/"): "",
    r"\bat 0x[0-9a-fA-F]{6,}": "at 0x…",  # the address in a default repr
    r"[^\n\r]*\r(?=[^\n])": "",  # what a progress bar has overwritten
}


class NotebookError(CachelabError):
    """A notebook could not be run or rewritten; the message names it and, where there is one, the cell."""


def found(folder: Path = NOTEBOOKS) -> list[Path]:
    """Return the numbered notebooks of ``folder``, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def execute(
    path: Path, scale: str = "quick", charts: Path | None = None, timeout: float = 120,
    extra: Mapping[str, str] | None = None, solve: bool = False,
) -> NotebookNode:  # fmt: skip
    """Run a copy of the notebook in a kernel of this interpreter and return it with its outputs.

    The file stays as it is, the kernel works in its folder, the user's Jupyter and IPython settings play no part.
    ``charts`` is the folder into which named figures are saved (None: nowhere), ``timeout`` holds for each cell, in
    seconds, ``extra`` is added to the kernel's environment. With ``solve`` each check cell is followed by its solution
    and by the check once more. Cells tagged ``raises-exception`` may raise; any other error, a time-out or the
    kernel's death raises NotebookError with the cell's number (from 1), source and traceback.
    """
    _check.choice("scale", scale, tuple(SCALES))
    path, number = Path(path).resolve(), 0
    nb = nbformat.read(path, as_version=4)
    if solve:
        nb.cells = _with_solutions(nb.cells, path.parent / "solutions")
    with tempfile.TemporaryDirectory(prefix="cachelab-run-", ignore_cleanup_errors=True) as own:
        # ipc needs no ports, hence no clashes; its path must be absolute because the kernel works in another folder.
        kernel = AsyncKernelManager(transport="ipc", connection_file=f"{own}/k", kernel_spec_manager=_ThisPython())
        client = NotebookClient(nb, kernel, timeout=timeout, record_timing=False)
        client.widget_registry = {"@jupyter-widgets/output": {"OutputModel": _PromptOutput}}
        env = _environment(own, scale, charts) | dict(extra or {})
        try:
            with open(f"{own}/log", "wb") as log, client.setup_kernel(
                cleanup_kc=True, cwd=str(path.parent), env=env, stdout=log, stderr=log
            ):  # fmt: skip
                for number, cell in enumerate(nb.cells, 1):
                    _run_cell(client, cell, number)
        except (CellExecutionError, CellTimeoutError, RuntimeError) as error:  # RuntimeError: the kernel is dead
            reason = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
            if not number:
                raise NotebookError(f"{path.name}: {reason}\n\n{Path(own, 'log').read_text()}") from None
            source = "" if cell.source in reason else f"{cell.source}\n\n"
            raise NotebookError(f"{path.name}, cell {number}:\n\n{source}{reason}") from None
    return nb


def clean(nb: NotebookNode) -> NotebookNode:
    """Return a copy without what differs from run to run and means nothing: addresses, timings, versions.

    Widgets go too, they are nothing without a kernel: a plain chart stands before each.
    """
    nb = copy.deepcopy(nb)
    nb.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        language_info={"name": "python"},
        cachelab=nb.metadata.get("cachelab", {}),
    )
    for cell in nb.cells:
        for key in ("execution", "collapsed", "scrolled", "trusted"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = _calm(out for out in cell.outputs if _WIDGET not in out.get("data", {}))
    return nb


def run_all(
    paths: Iterable[Path], scale: str = "quick", charts: Path | None = None, write_outputs: bool = False,
    timeout: float = 120, progress: Callable[..., object] = print,
) -> list[NotebookError]:  # fmt: skip
    """Run notebooks one after the other, as timings must, and return the failures; a failure stops only its notebook.

    Charts go to ``charts``: by default charts/local, which git ignores, at quick scale and charts at full scale. With
    ``write_outputs`` each notebook that ran is saved with its cleaned outputs. ``progress`` is called like print.
    """
    charts = Path(charts or SCALES[_check.choice("scale", scale, tuple(SCALES))])
    failures: list[NotebookError] = []
    cards = {Path(path): card(Path(path)) for path in paths}
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
        now = time.perf_counter()
        left = _spoken((now - start) * sum(minutes[done:]) / sum(minutes[:done]))
        progress(f"{_spoken(now - began):>6}{outcome}" + (f"   about {left} left" if minutes[done:] else ""))
    for error in failures:
        progress(f"\n{error}")
    fresh, took = len(_drawn(charts) - before), _spoken(time.perf_counter() - start)
    progress(f"\n{len(cards) - len(failures)} of {len(cards)} notebooks ran in {took}.")
    progress(f"Charts drawn: {fresh}, each as SVG, PNG and CSV in {os.path.relpath(charts)}")
    return failures


def navigation(folder: Path = NOTEBOOKS, write: bool = True) -> list[Path]:
    """Return the notebooks whose line "← previous · index · next →" does not fit the files found, and write it there.

    The line is the first and the last cell, both tagged ``nav``; labels are the headings, cut at the dash.
    """
    paths, outdated = found(folder), []
    links = [f"[{card(path)['label']}]({path.name})" for path in paths]
    for i, path in enumerate(paths):
        back, on = [f"← {links[i - 1]}"] if i else [], [f"{link} →" for link in links[i + 1 : i + 2]]
        line = " · ".join([*back, "[index](../README.md)", *on])
        top, bottom = (new_markdown_cell(line, id=f"nav-{end}", metadata={"tags": ["nav"]}) for end in ("top", "end"))
        nb = nbformat.read(path, as_version=4)
        cells = [top, *(cell for cell in nb.cells if "nav" not in tags(cell)), bottom]
        if cells != nb.cells:
            outdated.append(path)
            nb.cells = cells
            if write:
                nbformat.write(nb, path)
    return outdated


def index_table(folder: Path = NOTEBOOKS) -> str:
    """Return the Markdown table of the notebooks: number and title with a link, question, minutes."""
    rows = ["| notebook | question | minutes |", "|---|---|---:|"]
    for path, about in ((path, card(path)) for path in found(folder)):
        rows.append(f"| [{about['label']}]({folder.name}/{path.name}) | {about['question']} | {about['minutes']} |")
    return "\n".join(rows)


def update_table(readme: Path = ROOT / "README.md", folder: Path = NOTEBOOKS, write: bool = True) -> bool:
    """Return whether the table between the markers of ``readme`` is out of date, and bring it up to date."""
    text = readme.read_text(encoding="utf-8")
    start, end = (text.find(marker) for marker in TABLE)
    if not 0 <= start < end:
        raise NotebookError(f"{readme.name} needs the lines {TABLE[0]} and {TABLE[1]}, in this order, around its table")
    fresh = f"{text[:start]}{TABLE[0]}\n{index_table(folder)}\n{text[end:]}"
    if write and fresh != text:
        readme.write_text(fresh, encoding="utf-8")
    return fresh != text


def card(path: Path) -> dict:
    """Return a notebook's label ("03 Cache-aside", from its heading), question and minutes of reading."""
    nb = nbformat.read(path, as_version=4)
    heading = re.search(r"^# (.+)$", "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown"), re.M)
    label = heading[1].split(" — ")[0] if heading else path.stem.replace("_", " ")
    return {"label": label, "question": "", "minutes": 15} | nb.metadata.get("cachelab", {})


def code_digest(nb: NotebookNode) -> str:
    """Return a short digest of the notebook's code, which ties stored outputs to the code that gave them."""
    return f"{zlib.crc32(chr(0).join(cell.source for cell in nb.cells if cell.cell_type == 'code').encode()):08x}"


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 when a notebook failed or --check found something stale."""
    parser = argparse.ArgumentParser(prog="python -m cachelab.lab.notebooks", description="Run and tend the notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run notebooks, one after the other, and save their charts")
    which = "which to run, by number or path; all when none is named"
    run.add_argument("paths", nargs="*", type=_notebook, metavar="NOTEBOOK", help=which)
    run.add_argument("--scale", choices=SCALES, default="quick", help="how much to measure (default: quick)")
    run.add_argument("--charts", type=Path, metavar="FOLDER", help="default: charts/local, at full scale charts")
    run.add_argument("--write", action="store_true", help="save the outputs into the notebooks")
    for name, what in {"nav": "the previous · index · next lines", "table": "the README's table of notebooks"}.items():
        tend = commands.add_parser(name, help=f"write {what}")
        tend.add_argument("--check", action="store_true", help="write nothing, exit with 1 when something is stale")
    args = parser.parse_args(argv)
    if args.command == "run":
        return int(bool(run_all(args.paths or found(), args.scale, args.charts, args.write)))
    write = not args.check
    if args.command == "nav":
        stale = [path.name for path in navigation(write=write)]
    else:
        stale = ["README.md"] * update_table(write=write)
    print("\n".join(f"{name} {'written' if write else 'is stale'}" for name in stale) or "Nothing to do.")
    return int(bool(stale) and not write)


def _notebook(named: str) -> Path:
    path = next((path for path in found() if path.name.startswith(f"{named}_")), Path(named))
    if not path.is_file():
        numbers = ", ".join(path.name[:2] for path in found())
        raise argparse.ArgumentTypeError(f"{named!r} is no notebook: name a file, or one of the numbers {numbers}")
    return path


class _ThisPython(KernelSpecManager):
    """Knows one kernel, this interpreter: whatever kernels are installed, notebooks get the packages found here."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3 (ipykernel)", language="python")


class _PromptOutput(OutputWidget):
    """An Output widget that does not stall: it sends on the socket that nbclient polls, which can swallow a wake-up."""

    def _publish_msg(self, *args: object, **kwargs: object) -> None:
        super()._publish_msg(*args, **kwargs)
        self.kernel_client.shell_channel.socket.get(zmq.EVENTS)  # pyzmq's wake-ups are edge-triggered: look again


def _environment(own: str, scale: str, charts: Path | None) -> dict[str, str]:
    """Return this process's environment without what is the user's taste, with settings in the folder ``own``."""
    env = {name: value for name, value in os.environ.items() if not name.startswith((*_PERSONAL, "CACHELAB_CHARTS"))}
    env |= {f"JUPYTER_{kind}_DIR": own for kind in ("CONFIG", "DATA", "RUNTIME")}
    env |= {"IPYTHONDIR": f"{own}/ipython", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "CACHELAB_SCALE": scale}
    if charts is not None:
        Path(charts).mkdir(parents=True, exist_ok=True)
        env["CACHELAB_CHARTS"] = str(Path(charts).resolve())
    return env


def _run_cell(client: NotebookClient, cell: NotebookNode, number: int) -> None:
    # Of an expected error a reader sees the last line, of any other an author sees all.
    client.kc.execute(f"%xmode {'Minimal' if 'raises-exception' in tags(cell) else 'Context'}", silent=True)
    try:
        error = run_sync(_outcome)(client, cell, number)
    except KeyboardInterrupt:
        client.shutdown_kernel = "immediate"  # who interrupts is in a hurry
        raise
    if error:
        raise error


async def _outcome(client: NotebookClient, cell: NotebookNode, number: int) -> Exception | None:
    try:  # an error is returned, not raised: after an interrupt nobody is left to receive it, and asyncio would say so
        await client.async_execute_cell(cell, number - 1, execution_count=client.code_cells_executed + 1)
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
        return error


def _run_and_write(path: Path, scale: str, charts: Path, timeout: float, write_outputs: bool) -> None:
    source = path.read_bytes()
    nb = execute(path, scale, charts, timeout)
    if write_outputs:
        if path.read_bytes() != source:
            raise NotebookError(f"{path.name} was changed while it ran: run it again")
        nb.metadata.setdefault("cachelab", {})["outputs"] = {"scale": scale, "code": code_digest(nb)}
        nbformat.write(clean(nb), path)


def _with_solutions(cells: list[NotebookNode], folder: Path) -> list[NotebookNode]:
    solved = []
    for cell in cells:
        solved.append(cell)
        if "check" in tags(cell):
            source = (folder / cell.metadata["solution"]).read_text(encoding="utf-8")
            solved.append(new_code_cell(source, metadata={"tags": ["solution"]}))
            solved.append(new_code_cell(cell.source, metadata={"tags": ["check-solved"]}))
    return solved


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
            out.data.update({kind: _plain(text) for kind, text in out.data.items() if kind.startswith("text/")})
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
