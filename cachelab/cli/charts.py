"""python -m cachelab charts: every figure measured on this machine, drawn again or compared."""

import argparse
import os
from pathlib import Path

from cachelab import _check
from cachelab._extras import need

HELP = """
Run the notebooks, one after the other, and draw their charts.

Everything is measured on this machine, now. Quick charts go to
charts/local/, which git ignores, those of full scale to charts/: each as
SVG, PNG and CSV. Exit status 1 if a notebook failed. Ctrl-C keeps the charts
of the notebooks that have ended, and names the command that runs the rest.

--redraw runs nothing: it draws the figures of a folder again from the data
beside them. Exit status 1 if a file is not what it was: the picture that
stood there was not that of its data.

--compare lays the figures of another machine over those of charts/, or of
a second folder, in charts/local/compare/, and lists the findings in which
the two differ: ratios, shares and counts, never times.

examples:
  python -m cachelab charts
  python -m cachelab charts --scale full --only 01 05
  python -m cachelab charts --redraw
  python -m cachelab charts --redraw charts/local
  python -m cachelab charts --compare charts/local
  python -m cachelab charts --compare ../theirs/charts charts/local
"""
ENVIRONMENT = ("redis", "database")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    option = parser.add_argument
    option(
        "--scale",
        choices=("quick", "full"),
        default="quick",
        help="how much to measure (default: %(default)s)",
    )
    option(
        "--only",
        nargs="+",
        metavar="NN",
        help="the numbers of the notebooks to run (default: all)",
    )
    option(
        "--write",
        action="store_true",
        help="save the outputs into the notebooks, as before a commit",
    )
    option(
        "--redraw",
        nargs="?",
        type=Path,
        const=True,
        metavar="FOLDER",
        help="draw the figures of FOLDER (default: charts) again from their data",
    )
    option(
        "--compare",
        nargs="+",
        type=Path,
        metavar=("OTHER", "FOLDER"),
        help="lay the figures of OTHER over those of FOLDER (default: charts)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the notebooks, or draw or compare the figures of a folder."""
    _check_options(args)
    need("charts", "lab")
    from cachelab.lab import notebooks

    kept = Path(os.path.relpath(notebooks.SCALES["full"]))
    if args.redraw:
        return _redraw(kept if args.redraw is True else args.redraw)
    if args.compare:
        other, folder = (*args.compare, kept)[:2]
        return _compare(folder, other, Path(os.path.relpath(notebooks.SCALES["quick"] / "compare")))
    found = notebooks.numbered()
    numbers = list(args.only or found)
    paths = [found[_check.choice("only", number, tuple(found))] for number in numbers]
    ended: list[Path] = []
    more = {"write_outputs": args.write, "ended": ended.append}
    try:
        return int(bool(notebooks.run_all(paths, args.scale, **more)))
    except KeyboardInterrupt as stop:
        stop.add_note(_rest(numbers[: len(ended)], numbers[len(ended) :], args))
        raise


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that belong to different commands."""
    if (args.redraw or args.compare) and (args.only or args.write):
        named = "redraw" if args.redraw else "compare"
        raise ValueError(f"--{named} runs no notebook: leave out --only and --write")
    if args.redraw and args.compare:
        raise ValueError("--redraw and --compare are two commands: leave out one")
    if args.compare and len(args.compare) > 2:
        count = len(args.compare)
        raise ValueError(f"--compare lays one folder over another, not {count} at once")


def _rest(ended: list[str], left: list[str], args: argparse.Namespace) -> str:
    """Return what an interrupted run has finished, and the command that runs the rest."""
    done = f"Finished: {' '.join(ended)}." if ended else "No notebook has finished."
    options = " --scale full" * (args.scale == "full") + " --write" * args.write
    rest = f"python -m cachelab charts{options} --only {' '.join(left)}"
    return f"Interrupted. {done} The rest: {rest}" if left else f"Interrupted. {done}"


def _redraw(folder: Path) -> int:
    from cachelab.lab.draw import charts

    before = {file: file.read_bytes() for end in ("svg", "png") for file in folder.glob(f"*.{end}")}
    drawn = charts.redraw(folder)
    files = sorted(file for svg in drawn for file in (svg, svg.with_suffix(".png")))
    changed = [file.name for file in files if file.read_bytes() != before.get(file)]
    named = f": {', '.join(changed)}" if changed else ""
    print(f"Figures drawn again: {len(drawn)}. Files changed: {len(changed)}{named}.")
    return int(bool(changed))


def _compare(first: Path, second: Path, into: Path) -> int:
    from cachelab.lab import findings, overlay

    drawn = overlay.overlay(first, second, into)
    for old in [file for file in into.glob("*.*") if not drawn.get(file.stem)]:
        old.unlink()  # of another pair of folders, and taken for one of these
    df = findings.compare(first, second)
    only_in = df.attrs["only_in"]  # the notebooks of the others were not run
    apart = [name for names in only_in.values() for name in names]
    print(findings.in_words(df[~df["chart"].isin(apart)]))
    for where, names in only_in.items():
        print(f"Not compared, only in {where}: {', '.join(names)}")
    print(f"Figures of both: {sum(map(bool, drawn.values()))}, each as SVG and PNG in {into}")
    return 0
