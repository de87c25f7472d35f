"""Writes docs/cli.md from the commands themselves: `python -m mcutune.cli.reference docs/cli.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

_HEAD = """# Commands

Made from the commands by `make docs`; a test keeps it current. Every command also takes `--debug` (tracebacks) and
`--help`.
"""


def reference() -> str:
    """The whole document, in Markdown."""
    from mcutune.cli.app import app

    command = typer.main.get_command(app)
    parts = [_HEAD, f"{command.help}\n", f"{command.epilog}\n" if command.epilog else ""]
    parts += [_section(path, one) for path, one in leaves(command, ("mcutune",))]
    return "\n".join(part for part in parts if part)


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its full name, in the order of the help."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, one in inner.items():
        yield from leaves(one, (*path, name))


def _section(path: tuple[str, ...], command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join([*path, *(_usage(argument) for argument in arguments), "[OPTIONS]" if options else ""]).strip()
    lines = [f"## `{' '.join(path)}`\n", f"    {usage}\n", f"{_prose(command.help)}\n"]
    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{_usage(argument)}` | {_cell(argument.help)} |" for argument in arguments]
        lines.append("")
    if options:
        lines += ["| option | default | meaning |", "|---|---|---|"]
        lines += [f"| {_names(option)} | {_default(option)} | {_cell(option.help)} |" for option in options]
        lines.append("")
    return "\n".join(lines)


def _usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper()
    name = f"{name}..." if argument.nargs == -1 or argument.multiple else name
    return name if argument.required else f"[{name}]"


def _names(option: Any) -> str:
    both = [*option.opts, *option.secondary_opts]
    return ", ".join(f"`{name}`" for name in both)


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default in (None, False, (), []) or callable(option.default):
        return ""
    return f"`{option.default}`"


def _prose(text: str | None) -> str:
    return "\n".join(line.strip() for line in (text or "").splitlines()).strip()


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
