"""Errors that a user meets, each with a code, an exit code and a message that is safe to show.

    EpicrisisError
    ├── SettingsError        3   a setting is missing or wrong
    ├── TemplateError        3   a template set is wrong, at this file and line (`service.context`)
    ├── BudgetTooSmall       3   not even the index of the required facts fits (`service.context`)
    ├── RecordError          6   this patient cannot be summarised (merged, inactive, not the one asked for)
    ├── EngineError          8   the model's server does not start, answer or obey
    │   └── NoEncoder        8   there is no image encoder, or it failed (`service.imaging.encoder`)
    ├── StoreError           9   the disk is full, the key is missing, the database is damaged
    │   └── ShreddedError    9   what was stored about this patient was destroyed for good
    │       └── ExpiredError 9   this summary's text was deleted: it is older than the site keeps them
    ├── FilingError         11   the server refused the document, or would drop its label
    └── GateError           23   a model with a prompt is not released (`service.quality.gate`)

Connector errors have a tree of their own (`connectors.errors`, exit codes 4, 5, 6 and 7).
Exit code 0 is success, 1 an error of ours, 2 wrong usage, 10 a summary that is stored but not filed because
the record is incomplete or the patient deceased (SAFETY 6, 18), 17 one that is stored but not filed because
publishing is stopped (SAFETY 24), 18 a pass in which some admissions failed, 130 Ctrl-C.

Messages never hold patient data: what a resource said belongs in the store, not in an exception.
"""

from __future__ import annotations


class EpicrisisError(Exception):
    """An error with a stable `code`, a process `exit_code`, a safe message and what to do about it."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class SettingsError(EpicrisisError):
    """A setting is missing, wrong or unsafe."""

    code = "settings"
    exit_code = 3


class RecordError(EpicrisisError):
    """This patient cannot be summarised: merged into another, inactive, or not the one asked for."""

    code = "record"
    exit_code = 6


class EngineError(EpicrisisError):
    """The model's server does not start, does not answer, or does not obey."""

    code = "engine"
    exit_code = 8


class StoreError(EpicrisisError):
    """The database or the key file cannot be used."""

    code = "store"
    exit_code = 9


class ShreddedError(StoreError):
    """What was stored about a patient was destroyed, and nothing new is to be stored."""

    code = "shredded"

    def __init__(self) -> None:
        super().__init__(
            "What was stored about this patient was destroyed.",
            "Nothing new is stored about them before `epicrisis keys readmit`.",
        )


class ExpiredError(ShreddedError):
    """A summary's text was deleted by the site's rule (`epicrisis retain`); its patient was not shredded."""

    code = "expired"

    def __init__(self) -> None:
        StoreError.__init__(
            self,
            "The text of this summary was deleted: it is older than this site keeps them.",
            "A new summary can be made at any time.",
        )


class FilingError(EpicrisisError):
    """The document was not written."""

    code = "filing"
    exit_code = 11


class GateError(EpicrisisError):
    """A model with a prompt has no passed evaluation, and the release gate is on."""

    code = "gate"
    exit_code = 23
