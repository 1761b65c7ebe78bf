"""The command line that people read: click's help and shell completion, built from the table.

Nothing is run from here, since click's imports cost more than a container. It is imported for --help, for no
arguments at all, and when a shell asks for completions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class, shell_complete

from pyrun.cli import options, texts
from pyrun.cli.parse import convert
from pyrun.cli.root import default_root
from pyrun.cli.table import GLOBALS
from pyrun.cli.text import Text
from pyrun.cli.verbs import VERBS
from pyrun.errors import PyrunError
from pyrun.oci.names import SIGNALS

VARIABLE = "_PYRUN_COMPLETE"
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Word(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A value: converted as parse.py does it, completed by what it stands for."""

    def __init__(self, completes: str, option: options.Option | None = None) -> None:
        self.completes = completes
        self.option = option
        self.name = option.kind if option else completes or "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if self.option is None or not isinstance(value, str):
            return value
        try:
            return convert(self.option, value)
        except ValueError as error:
            self.fail(f'"{value}" is not {error}', param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if self.option and self.option.choices:
            return _matching(self.option.choices, incomplete)
        if self.completes in (options.A_FILE, options.A_DIRECTORY):
            return [CompletionItem(incomplete, type={"directory": "dir"}.get(self.completes, "file"))]
        if self.completes == options.AN_ID:
            return _matching(_ids(ctx.find_root().params.get("root")), incomplete)
        if self.completes == options.A_SIGNAL:
            prefix = "SIG" if incomplete.upper().startswith("SIG") else ""
            return _matching([prefix + name for name in SIGNALS], incomplete.upper())
        if self.completes == options.A_VERB:
            return _matching([verb.name for verb in VERBS.values() if not verb.hidden], incomplete)
        return []


def _matching(words: Iterable[str], start: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(start)]


def _ids(root: str | None) -> list[str]:
    try:
        with os.scandir(root or default_root()) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


class TaughtCommand(click.Command):
    """A command whose help ends with examples, exit statuses and links, and keeps their lines."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_sections(formatter, texts.VERBS[_name_of(ctx)])


class TaughtSubgroup(click.Group):
    """A verb with others below it."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.name in texts.VERBS:
            write_sections(formatter, texts.VERBS[self.name])


class TaughtGroup(click.Group):
    """The program: its commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in texts.GROUPS:
            with formatter.section(title):
                formatter.write_dl([(name, VERBS[name].help) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_sections(formatter, texts.PROGRAM)


def _name_of(ctx: click.Context) -> str:
    """The verb's name in the table: all words but the program's."""
    return ctx.command_path.partition(" ")[2]


def write_sections(formatter: click.HelpFormatter, text: Text) -> None:
    if text.examples:
        with formatter.section("Examples"):
            for command, what in text.examples:
                formatter.write(f"  {command}\n      {what}\n")
    if text.exits:
        with formatter.section("Exit status"):
            formatter.write_dl(list(text.exits.items()))
    if text.see:
        with formatter.section("See"):
            formatter.write("".join(f"  {link}\n" for link in text.see))


def build() -> click.Group:
    """The whole command line as click has it."""
    version = click.Option(
        ["--version", "-v"], is_flag=True, help="print the versions of pyrun, the spec and libseccomp"
    )
    app = TaughtGroup(
        "pyrun",
        params=[*map(_option, GLOBALS), version],
        help=texts.PROGRAM.about,
        context_settings=SETTINGS,
        subcommand_metavar="COMMAND ...",
        no_args_is_help=False,
    )
    for verb in VERBS.values():
        first, _, second = verb.name.partition(" ")
        if not second:
            app.add_command(_command(verb))
            continue
        group = app.commands.get(first)
        if not isinstance(group, click.Group):
            group = _group(first)
            app.add_command(group)
        group.add_command(_command(verb))
    return app


def _group(first: str) -> click.Group:
    """The verb whose name is the first word of others', or what stands for it."""
    verb = VERBS.get(first)
    group = TaughtSubgroup(
        first,
        params=list(map(_option, verb.options)) if verb else [],
        help=texts.VERBS[first].about if verb else f"What begins with {first}.",
        short_help=verb.help if verb else "",
        context_settings=SETTINGS,
        invoke_without_command=verb is not None,
        no_args_is_help=False,
        subcommand_metavar="[COMMAND ...]" if verb else "COMMAND ...",
        callback=lambda **values: values,
    )
    return group


def _command(verb: options.Verb) -> click.Command:
    command = TaughtCommand(
        verb.name.rpartition(" ")[2],
        params=[*map(_option, verb.options), *map(_argument, verb.arguments)],
        help=texts.VERBS[verb.name].about,
        short_help=verb.help,
        hidden=verb.hidden,
        context_settings={**SETTINGS, "allow_interspersed_args": not verb.stops},
        options_metavar="[OPTIONS]" if verb.options else "",
        callback=lambda **values: values,
    )
    return command


def _option(option: options.Option) -> click.Option:
    names = [f"--{option.name}", option.attribute, *([f"-{option.short}"] if option.short else [])]
    default_shown = bool(option.choices)
    if option.kind == options.FLAG:
        return click.Option(names, is_flag=True, default=option.default, help=option.help, hidden=option.hidden)
    return click.Option(
        names,
        type=Word(option.completes, option),
        metavar=option.metavar,
        help=option.help,
        hidden=option.hidden,
        multiple=option.many,
        default=None if option.many else option.default,
        show_default=default_shown,
    )


def _argument(argument: options.Argument) -> click.Argument:
    shown = argument.name.upper() + ("..." if argument.many else "")
    return click.Argument(
        [argument.name.replace("-", "_")],
        type=click.Choice(options.SHELLS) if argument.name == "shell" else Word(argument.completes),
        required=argument.required,
        nargs=-1 if argument.many else 1,
        metavar=None if argument.name == "shell" else shown if argument.required else f"[{shown}]",
    )


def show_help(verb: str | None) -> int:
    """Prints the help of the program or of a verb."""
    app = build()
    context = click.Context(app, info_name="pyrun", **SETTINGS)  # type: ignore[arg-type]
    group: click.Group = app
    for word in verb.split() if verb is not None else []:
        command = group.commands[word]
        context = click.Context(command, info_name=word, parent=context, **SETTINGS)  # type: ignore[arg-type]
        if isinstance(command, click.Group):
            group = command
    click.echo(context.command.get_help(context))
    return 0


def completion_script(shell: str) -> str:
    """The script that a shell reads; it calls pyrun with VARIABLE set for each completion."""
    found = get_completion_class(shell)
    if found is None:
        raise PyrunError(f"this version of click has no completion for {shell}")
    # Not found.source(): for bash it would run bash, to look at its version.
    return ShellComplete.source(found(build(), {}, "pyrun", VARIABLE)) + "\n"


def complete() -> int:
    """Answers a shell that asks, by the environment, what may come next."""
    return shell_complete(build(), {}, "pyrun", VARIABLE, os.environ.get(VARIABLE, ""))
