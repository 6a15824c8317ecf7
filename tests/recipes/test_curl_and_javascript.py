"""JavaScript: any text is signed as the service expects, and a refusal is an exception."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gprochat.server import in_thread, serve
from tests.docs.pages import file_of

TEXT = "line1\nline2\t\"q\" \\ \u2028 'Как дела?' 🙂 e\u0301"

MAIN = """
import { ask } from "./ask.mjs";
const { url, key, text } = JSON.parse(process.env.ASKED);
const pieces = [];
for await (const piece of ask(url, key, text)) pieces.push(piece);
const refused = await ask(url, "another key", text).next().catch(String);
console.log(JSON.stringify({ pieces, refused }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_asks_as_a_browser_does(tmp_path: Path) -> None:
    (tmp_path / "ask.mjs").write_text(file_of("curl-and-javascript", "ask.mjs"), encoding="utf-8")
    (tmp_path / "main.mjs").write_text(MAIN)
    with in_thread(serve(grace=0.0)) as server:
        asked = {"url": server.url, "key": server.service.secret_key, "text": TEXT}
        run = subprocess.run(
            ["node", "main.mjs"],
            cwd=tmp_path,
            env=os.environ | {"ASKED": json.dumps(asked)},
            capture_output=True,
            check=True,
        )
    outcome = json.loads(run.stdout)
    assert "".join(outcome["pieces"]) == TEXT
    assert len(outcome["pieces"]) > 1
    assert outcome["refused"].startswith("Error: 401: ")
    assert "Invalid signature." in outcome["refused"]
