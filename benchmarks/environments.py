"""The environments that the clients run in, made on first use. Their requirements clash."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = ("gprochat", "openai", "g4f", "litellm", "litellm-proxy", "ray")


def python(name: str) -> str:
    """Return the interpreter of an environment; make the environment if it is missing or old."""
    requirements = HERE / "environments" / f"{name}.txt"
    folder = HERE / ".envs" / name
    stamp = folder / "requirements"
    constraints = (HERE.parent / "constraints.txt").read_bytes() if name == "gprochat" else b""
    digest = hashlib.sha256(requirements.read_bytes() + constraints).hexdigest()
    interpreter = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"Creating benchmarks/.envs/{name} ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [
                *(str(interpreter), "-m", "pip", "-qq", "--disable-pip-version-check"),
                *("install", "--requirement", str(requirements)),
            ],
            check=True,
        )
        stamp.write_text(digest)
    return str(interpreter)


def versions(name: str) -> dict[str, str]:
    """Return the versions of the packages that are installed in an environment."""
    listing = subprocess.run(
        [python(name), "-m", "pip", "--disable-pip-version-check", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = (line.split("==") for line in listing.stdout.splitlines() if "==" in line)
    return dict(pairs)
