"""The units are valid, and start commands that exist with the arguments that they take."""

import os
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Final

import pytest
from click import Context

from gprochat.cli.commands import gprochat
from tests.docs.pages import file_of

UNITS: Final = ("gprochat-serve.service", "gprochat-gateway.service")

PROGRAM: Final = "/opt/gprochat/bin/gprochat"


@pytest.mark.parametrize("unit", UNITS)
def test_the_command_takes_its_arguments(unit: str) -> None:
    parser = ConfigParser(interpolation=None)
    parser.read_string(file_of("systemd", unit))
    program, name, *arguments = shlex.split(parser["Service"]["ExecStart"].replace("\\\n", " "))
    assert program == PROGRAM
    command = gprochat.get_command(Context(gprochat), name)
    assert command is not None
    # With the parent, because a command of click's remembers the help option of its first context.
    command.make_context(name, arguments, parent=gprochat.make_context("gprochat", [name]))
    assert parser["Service"]["EnvironmentFile"] == f"/etc/gprochat/{name}.env"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    for unit in UNITS:
        # The program is not installed there, and systemd looks for it.
        text = file_of("systemd", unit).replace(PROGRAM, sys.executable)
        (tmp_path / unit).write_text(text)
    run = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", *UNITS],
        cwd=tmp_path,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
    )
    assert [line for line in run.stderr.splitlines() if "gprochat" in line] == []
    assert run.returncode == 0
