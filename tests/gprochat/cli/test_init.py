"""What the command says before the command itself can run."""

import subprocess
import sys

from .running import LIMIT, environment, run_where_installed


def test_without_click_the_command_says_what_to_install() -> None:
    done = run_where_installed(["gprochat[aiohttp]"], "--help")
    assert done.returncode == 1
    assert done.stderr == "gprochat: No module named 'click'. Run: pip install 'gprochat[cli]'\n"


def test_ctrl_c_while_the_command_is_imported_is_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from gprochat.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, timeout=LIMIT
    )
    assert (done.returncode, done.stderr) == (130, b"")
