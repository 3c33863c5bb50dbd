"""How a command ends when it does not end well. The numbers are the contract with schedulers: docs/cli.md."""

from __future__ import annotations

import os

DONE, GATE_FAILED, USAGE, CRM_FAILED, WAREHOUSE_FAILED = 0, 1, 2, 3, 4


class PlumblineError(Exception):
    """An end with a message for a person: one or two plain lines, what happened and what to do. `exit_code` is the command's."""

    exit_code = USAGE


class ConfigError(PlumblineError):
    """The configuration cannot be used; the message names the file, the key and the fix."""


class UnknownSource(PlumblineError):
    """A command named a source that the configuration does not have."""


class GateFailed(PlumblineError):
    """The gate that was asked for did not hold (`check --fail-on`)."""

    exit_code = GATE_FAILED


class SourcesFailed(PlumblineError):
    """One or more sources failed; what the others delivered is in the warehouse. `errors` maps source to its plain lines."""

    exit_code = CRM_FAILED

    def __init__(self, errors: dict[str, str], finished: list[str]) -> None:
        self.errors = errors
        kept = f" Finished all the same: {', '.join(finished)}." if finished else ""
        super().__init__("\n".join(errors.values()) + (f"\n{kept.strip()}" if kept else ""))


class WriteFailed(PlumblineError):
    """One or more CRMs could not be written to; what they acknowledged before is recorded, the rest of the plan can be sent again."""

    exit_code = CRM_FAILED


class Interrupted(SystemExit):
    """Somebody or something asked the command to stop: Ctrl-C, or a scheduler's SIGTERM. Its code is 128 + the signal."""


def exit_code(error: BaseException) -> int | None:
    """The contract's exit code for `error`, or None when it is a defect of ours (a traceback is then due).

    The rooms' own errors are recognised by their class names' roots, so that no room has to be imported to end a command.
    """
    if isinstance(error, PlumblineError):
        return error.exit_code
    if _is_of_a_path(error):
        return USAGE
    roots = {base.__name__ for base in type(error).__mro__}
    if "CrmError" in roots:
        return CRM_FAILED
    if "WarehouseError" in roots:
        return WAREHOUSE_FAILED
    if "RuleError" in roots:
        return USAGE
    if "ExpectationsError" in roots:  # judgement and findings disagree: nothing was written
        return WAREHOUSE_FAILED
    return None


def plain(error: BaseException) -> str:
    """`error` as lines for a person."""
    if isinstance(error, OSError) and _is_of_a_path(error):
        return f"{error.filename}: {error.strerror}.\nCheck that place: the paths of the configuration and of options, their rights, and the disk."
    return str(error)


def _is_of_a_path(error: BaseException) -> bool:
    """A file or directory that cannot be used: no defect of ours, whoever met it first."""
    return isinstance(error, OSError) and isinstance(error.filename, str | bytes | os.PathLike)
