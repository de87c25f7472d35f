"""Documents are tests: the reference is current, everything shipped is mentioned, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from mcutune.cli.app import app
from mcutune.cli.reference import leaves, reference
from mcutune.shipped import shipped_names

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")})
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [" ".join(path) for path, _ in leaves(typer.main.get_command(app), ("mcutune",))]


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference(), "run `make docs`"


def test_the_reference_has_every_command_and_option_with_a_word_on_it() -> None:
    text = reference()
    for path, command in leaves(typer.main.get_command(app), ("mcutune",)):
        assert f"## `{' '.join(path)}`" in text
        assert command.help, path
        for parameter in command.params:
            assert parameter.help, (path, parameter.name)
            for name in parameter.opts if parameter.param_type_name == "option" else ():
                assert f"`{name}`" in text


def test_the_readme_mentions_every_space_and_protocol_with_its_folder() -> None:
    for folder in ("search_spaces", "eval_protocols"):
        page = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        for name in shipped_names(folder):
            assert f"`{name}`" in README, name
            assert f"{name}.yaml" in page, name


def test_the_readme_speaks_of_every_command() -> None:
    text = README + (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if name not in text] == []
    verbs = {name.split()[1] for name in COMMANDS}
    assert [verb for verb in verbs - {"report", "study"} if f"mcutune {verb}" not in README] == []


@pytest.mark.parametrize("name", re.findall(r"^ *mcutune [^\n]*(?:\\\n[^\n]*)*", README, re.M))
def test_commands_in_the_readme_parse(name: str) -> None:
    """Each command shown names a real command and real options."""
    words = name.replace("\\\n", " ").split("#")[0].split()
    command = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        assert rest[0] in command.commands, name
        command, rest = command.commands[rest[0]], rest[1:]
    known = {opt for parameter in command.params for opt in parameter.opts}
    assert [word for word in rest if word.startswith("--") and word not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target) and not (page.parent / target.split("#")[0]).exists():
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_nothing_of_one_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\.\./shared|/work/|/home/\w|/root/", text)
