"""python -m cachelab lab: a copy of the notebooks to work in, opened in JupyterLab."""

import argparse
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from cachelab._extras import need
from cachelab.errors import CachelabError

HELP = """
Open the notebooks in JupyterLab, in a copy that is yours.

The copy is work/ in the clone, which git ignores: the notebooks without
outputs, so that nothing tells an answer before you have guessed. It is made
at the first start, and then kept as you left it. A notebook that has changed
in the clone since is replaced if you did not edit it; otherwise the new one
comes beside yours, as 05_name.new.ipynb.

What the command does not know goes to JupyterLab.

examples:
  python -m cachelab lab
  python -m cachelab lab --fresh
  python -m cachelab lab --folder ~/cachelab --no-browser --port=9000
"""
ENVIRONMENT = ("redis", "database")

_ROOT = Path(__file__).parents[2]
_RECORD = ".copied.json"  # what was copied: {file: digest of the original}
# JupyterLab's defaults where it is opened from here; what a user has chosen goes before them: no
# question about news, room for names in the list of files, an index whose links can be followed.
_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/filebrowser-extension:browser": {"showLastModifiedColumn": False},
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--folder",
        type=Path,
        default=_ROOT / "work",
        help="where the copy is (default: work in the clone)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="set the copy aside, as work-2026-01-31-1, and start anew",
    )


def run(args: argparse.Namespace) -> int:
    """Make or update the copy, say what came of it, and become JupyterLab."""
    need("lab", "lab")
    folder = args.folder.expanduser().absolute()
    try:
        for sentence in _prepare(folder, args.fresh):
            print(sentence)
    except OSError as error:
        reason = f"{_shown(folder)} cannot hold the notebooks ({error.strerror or error})"
        remedy = "name a folder of yours: python -m cachelab lab --folder ~/cachelab"
        if os.environ.get("CACHELAB_IMAGE"):
            remedy = "set LAB_USER in .env to its owner, as .env.example shows"
        raise CachelabError(f"{reason}; {remedy}") from None
    return _become_jupyterlab(folder, args.rest)


def _prepare(folder: Path, fresh: bool) -> Iterator[str]:
    from cachelab.lab import notebooks

    notebooks.numbered()  # or say that there are none
    if server := _serving(folder):
        if fresh:
            raise CachelabError(f"JupyterLab is at work in {_shown(folder)}: end {server} first")
        yield f"JupyterLab is at work in {_shown(folder)} ({server}), so its files stay as they are"
        return
    if fresh and folder.exists():
        yield f"The old copy is now {_shown(_set_aside(folder))}."
    yield from update(folder)


def update(folder: Path, clone: Path = _ROOT) -> Iterator[str]:
    """Copy what is new or has changed in ``clone`` into ``folder``, never over what was edited.

    A notebook was edited if the sources of its cells are not those that were copied; outputs and
    metadata are JupyterLab's.

    Yields:
        A sentence for each file that was copied, or one for all at the first start.
    """
    from cachelab.lab import notebooks

    folder.mkdir(parents=True, exist_ok=True)
    record, first = _read(folder / _RECORD), not (folder / _RECORD).exists()
    sentences = []
    for path in notebooks.found(folder / "notebooks"):
        _put_pictures_for_panels(path)
    for name, content in _originals(clone):
        fresh, copy = _digest(name, content), folder / name
        kept = _digest(name, copy.read_bytes()) if copy.exists() else None
        if kept not in (fresh, None) and record.get(name) != fresh:
            edited = kept != record.get(name)
            copy = _beside(copy, fresh) if edited else copy
            _write(copy, content)
            what = f"is beside yours, as {copy.name}" if edited else "has replaced the old one"
            sentences.append(f"{Path(name).name} has changed: the new one {what}.")
        elif kept is None:
            _write(copy, content)
            sentences.append(f"{Path(name).name} is new.")
        record[name] = fresh
    _write(folder / _RECORD, json.dumps(record, indent=1).encode())
    if first and all(sentence.endswith(" is new.") for sentence in sentences):
        yield f"The notebooks are in {_shown(folder)}, without outputs; what you write is kept."
    else:
        yield from sentences


def _originals(clone: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what a copy holds, by its path: the notebooks, and all that their links need."""
    from cachelab.lab import notebooks

    folder = clone / "notebooks"
    for path in notebooks.found(folder):
        yield f"notebooks/{path.name}", _without_outputs(path)
    yield "README.md", f"# The notebooks\n\n{notebooks.index_table(folder)}\n".encode()
    folders = ("notebooks/images/*", "notebooks/lab/*", "notebooks/solutions/*.py")
    for pattern in (*folders, "benchmarks/libraries.*"):
        for path in sorted(clone.glob(pattern)):
            if not path.match("*.*.py"):  # wrong answers are for the tests
                yield path.relative_to(clone).as_posix(), path.read_bytes()


def _without_outputs(path: Path) -> bytes:
    import nbformat

    try:
        nb = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except ValueError:
        remedy = f"git checkout -- {_shown(path)} brings it back"
        raise CachelabError(f"{_shown(path)} is no longer a notebook: {remedy}") from None
    nb.metadata.get("cachelab", {}).pop("outputs", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return str(nbformat.writes(nb)).encode()  # type: ignore[no-untyped-call]


def _put_pictures_for_panels(path: Path) -> None:
    """Let panels that an earlier kernel showed be the pictures that were saved with them.

    JupyterLab prefers a widget whose model is gone to its picture.
    """
    from cachelab.lab.notebooks import without_widgets

    try:
        nb: dict[str, Any] = json.loads(path.read_bytes())
        before = json.dumps(nb)
        for cell in nb["cells"]:
            if "outputs" in cell:
                cell["outputs"] = without_widgets(cell["outputs"])
    except (ValueError, KeyError, TypeError, AttributeError):  # the learner's, whatever it is
        return
    if json.dumps(nb) != before:
        _write(path, f"{json.dumps(nb, indent=1, ensure_ascii=False)}\n".encode())


def _digest(name: str, content: bytes) -> str:
    """Return a digest of what a person writes: the cells' sources where it is a notebook."""
    if name.endswith(".ipynb"):
        try:
            cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(content)["cells"]]
            # Whoever runs the last cell gets an empty one below it.
            content = json.dumps([cell for cell in cells if cell[1].strip()]).encode()
        except (ValueError, KeyError, TypeError):
            pass
    return hashlib.sha256(content).hexdigest()[:16]


def _beside(copy: Path, fresh: str) -> Path:
    """Return a free name beside a copy, or the one that has this content already."""
    for number in itertools.count(1):
        end = ".new" if number == 1 else f".new-{number}"
        path = copy.with_name(f"{copy.stem}{end}{copy.suffix}")
        if not path.exists() or _digest(path.name, path.read_bytes()) == fresh:
            return path
    raise AssertionError


def _set_aside(folder: Path) -> Path:
    if not (folder / _RECORD).exists():
        raise CachelabError(f"{_shown(folder)} is no copy of the notebooks: name another --folder")
    for number in itertools.count(1):
        old = folder.with_name(f"{folder.name}-{date.today()}-{number}")
        if not old.exists():
            return folder.rename(old)
    raise AssertionError


def _read(record: Path) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in json.loads(record.read_bytes()).items()}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def _serving(folder: Path) -> str:
    """Return which process serves this folder already, "" if none does."""
    from jupyter_server.serverapp import list_running_servers

    for server in list_running_servers():
        if Path(server["root_dir"]).resolve() == folder.resolve():
            return f"process {server['pid']}"
    return ""


def _shown(path: Path) -> str:
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def _become_jupyterlab(folder: Path, given: list[str]) -> int:
    from cachelab.lab import notebooks

    settings = folder / ".jupyter"
    _write(
        settings / "labconfig" / "default_setting_overrides.json", json.dumps(_SETTINGS).encode()
    )
    paths = [str(settings), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(paths)
    os.chdir(folder / "notebooks")
    command = [
        *[sys.executable, "-m", "jupyterlab"],
        # Whatever the user's settings say.
        f"--ServerApp.root_dir={folder}",
        f"--FileContentsManager.preferred_dir={folder / 'notebooks'}",
        *["--allow-root"] * (os.name == "posix" and os.geteuid() == 0),
        *given,
        notebooks.found()[0].name,
    ]
    sys.stdout.flush()
    os.execv(sys.executable, command)
