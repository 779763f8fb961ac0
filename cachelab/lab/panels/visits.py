"""The panel of the clinic: choose a patient, look at its numbers, name cause and cure."""

import html
from collections.abc import Callable, Iterable
from functools import partial

import ipywidgets
import pandas as pd

from cachelab.lab.panels.display import LiveRegion
from cachelab.lab.panels.stills import Panel
from cachelab.lab.watch import clinic

NOBODY = "Nobody is here. Press visit."
UNKNOWN = "?"
LABEL = {"description_width": "6em"}
WIDE = {"width": "max-content"}
STEPS = 3  # of hints


def visit_a_patient() -> ipywidgets.VBox:
    """Return buttons to visit a patient of the clinic, to look, to be given hints, and to diagnose.

    "visit" starts the chosen patient, a program on a server of its own, and says what its users
    say; "look" lets it work for some seconds and shows the answers to all questions; "hint" says
    more each time; "try" says whether cause and cure are right, and really tries the cure. "leave"
    ends the patient, as does the next visit, or the end of the process.
    """
    return _Visit().box


class _Visit:
    """Who is visited, what is said and shown, and how many hints were given."""

    def __init__(self) -> None:
        self.patient: clinic.Patient | None = None
        self.hints = 0
        self.which = _choice("patient", clinic.CASES)
        self.cause = _choice("cause", [UNKNOWN, *clinic.CAUSES])
        self.cure = _choice("cure", [UNKNOWN, *clinic.CURES])
        calls = {"visit": self.visit, "look": self.look, "hint": self.hint, "leave": self.leave}
        self.said, self.numbers = LiveRegion(), LiveRegion(quiet=True)
        self.said.layout.min_height = "5em"
        self.said.value = NOBODY
        ask = [self.button(name, call) for name, call in calls.items()]
        tries = ipywidgets.HBox([self.button("try", self.diagnose)])
        parts = [self.which, ipywidgets.HBox(ask), self.cause, self.cure, tries]
        self.box = Panel([*parts, self.said, self.numbers])

    def button(self, name: str, call: Callable[[], str]) -> ipywidgets.Button:
        """Return a button that says what a call returns."""
        button = ipywidgets.Button(description=name, layout={"width": "6em"})
        button.on_click(partial(self.press, call))
        return button

    def press(self, call: Callable[[], str], button: ipywidgets.Button) -> None:
        name, button.description = button.description, "…"  # disabled it would lose the focus
        try:
            self.said.value = call()
        except Exception as error:  # shown to who pressed, and the panel goes on
            self.said.value = html.escape(str(error))
        finally:
            button.description = name

    def visit(self) -> str:
        self.leave()
        self.patient = clinic.patient(self.which.value).start()
        return html.escape(f"Patient {self.patient.number}: {self.patient.symptom}")

    def look(self) -> str:
        if self.patient is None:
            return NOBODY
        self.patient.observe()
        self.numbers.value = _table(self.patient.questions())
        return "Go down the questions: which is the first whose number is not as usual?"

    def hint(self) -> str:
        if self.patient is None:
            return NOBODY
        self.hints = min(STEPS, self.hints + 1)
        return f"Hint {self.hints}: {html.escape(clinic.hint(self.patient, self.hints))}"

    def diagnose(self) -> str:
        if self.patient is None:
            return NOBODY
        named = (None if one.value == UNKNOWN else one.value for one in (self.cause, self.cure))
        sentences = clinic.diagnose(self.patient, *named)
        said = [_held(sentence, call) for sentence, call in sentences.items()]
        self.numbers.value = _table(self.patient.questions())
        return "<br>".join(map(html.escape, said))

    def leave(self) -> str:
        if self.patient is not None:
            self.patient.stop()
        self.patient, self.hints, self.numbers.value = None, 0, ""
        return NOBODY


def _choice(name: str, options: Iterable[object]) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=list(options), description=name, style=LABEL, layout=WIDE)


def _held(sentence: str, call: Callable[[], bool]) -> str:
    try:
        call()
    except AssertionError as seen:
        return f"not yet: {sentence} ({seen})"
    return f"held: {sentence}"


def _table(asked: pd.DataFrame) -> str:
    """Return the answers as an HTML table, without what has no number."""
    shown = asked.dropna(subset=["number"])[["question", "usual", "number", "remark"]]
    return shown.to_html(index=False, border=0, float_format="{:.3g}".format)
