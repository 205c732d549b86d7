"""Commands of other packages: entry points of the group `yeastexp.commands`.

An entry point is a `click.Command`, or a function that is called without arguments and returns one:

    [options.entry_points]
    yeastexp.commands =
        count = mylab.commands:count

It is loaded when the command is called; `yeastexp --help` lists it by name.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import Any

import click

from yeastexp.errors import RUN_FAILED, UserError, did_you_mean, in_one_line

GROUP = "yeastexp.commands"


MEANT = {
    **dict.fromkeys(("train", "fit", "start"), "run"),
    **dict.fromkeys(("continue", "restart"), "resume"),
    **dict.fromkeys(("score", "test", "eval"), "evaluate"),
    **dict.fromkeys(("infer", "segment", "apply"), "predict"),
    **dict.fromkeys(("validate", "lint"), "check"),
    **dict.fromkeys(("convert", "import"), "pack"),
    **dict.fromkeys(("download",), "fetch"),
    **dict.fromkeys(("generate", "simulate"), "synth"),
    **dict.fromkeys(("summary", "info"), "inspect"),
    **dict.fromkeys(("diff",), "compare"),
    **dict.fromkeys(("tune", "search", "optimize"), "sweep"),
}
"""The commands here by the names that other programs give to the like, for suggestions."""


class InstalledCommand(click.Command):
    """A placeholder for the command of an entry point, which is loaded when it is called."""

    def __init__(self, point: importlib.metadata.EntryPoint) -> None:
        package = point.dist.name if point.dist else point.module
        super().__init__(point.name, short_help=f"Added by {package}.")
        self.point = point

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return a context of the loaded command; click then invokes that command and not this placeholder."""
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> click.Command:
        """Load the command. Raises UserError if that fails."""
        try:
            command = self.point.load()
            command = command if isinstance(command, click.Command) else command()
            if not isinstance(command, click.Command):
                raise TypeError(f"{type(command).__name__} is not a click command")
        except (Exception, SystemExit) as error:
            fault = f"command '{self.name}' ({self.point.value}) cannot be loaded: {in_one_line(error)}"
            raise UserError(fault, status=RUN_FAILED) from error
        return command


class CommandGroup(click.Group):
    """The package's commands and those that installed packages add; a mistyped name is answered with the nearest."""

    def installed(self) -> dict[str, InstalledCommand]:
        """The commands of entry points by name. Warns of those whose name is taken, and leaves them out."""
        commands: dict[str, InstalledCommand] = {}
        for point in importlib.metadata.entry_points(group=GROUP):
            if point.name in self.commands or point.name in commands:
                warnings.warn(f"command '{point.name}' ({point.value}) is ignored: the name is taken", stacklevel=2)
            else:
                commands[point.name] = InstalledCommand(point)
        return commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names in alphabetical order."""
        return sorted({*self.commands, *self.installed()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; entry points are looked up only for a name that the package does not know."""
        return self.commands.get(cmd_name) or self.installed().get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command '{args[0]}'{did_you_mean(args[0], self.list_commands(ctx), MEANT)}")
        return super().resolve_command(ctx, args)
