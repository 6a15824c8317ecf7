"""The scripts for a shell's completion."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from .running import COMMAND, LIMIT, environment, invoke


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_command_and_the_variable(shell: str) -> None:
    script = invoke("completion", shell).stdout
    assert "_GPROCHAT_COMPLETE" in script
    assert " gprochat" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_command_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "gprochat"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    code = (
        f"{invoke('completion', 'bash').stdout}\n"
        "COMP_WORDS=(gprochat che); COMP_CWORD=1\n"
        f'_gprochat_completion {program}; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", code],
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
    )
    assert done.stdout.split() == ["check"], done.stderr
