"""`gprochat completion`: the script that completes commands and options in a shell."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from .options import example

__all__ = ["completion"]

SHELLS: Final = ("bash", "zsh", "fish")

VARIABLE: Final = "_GPROCHAT_COMPLETE"
"""The variable in which click looks for the shell's request; its name follows the command's."""


@click.command(
    epilog=example(
        'eval "$(gprochat completion bash)"           # in ~/.bashrc',
        'eval "$(gprochat completion zsh)"            # in ~/.zshrc',
        "gprochat completion fish | source            # in ~/.config/fish/config.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script for completion in bash, zsh or fish."""
    kind = get_completion_class(shell)
    assert kind is not None  # click has a class for each of SHELLS
    click.echo(kind(context.find_root().command, {}, "gprochat", VARIABLE).source())
