"""LiteLLM's proxy, in front of an OpenAI-compatible peer with the same text at the same pace."""

import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from . import MODELS, prepare

# Its price list comes with it; without this it would be fetched from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


def wait(url: str, key: str) -> None:
    """Say when it listens, and end the process when the standard input is closed."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            opener.open(f"{url}/health/liveliness").close()
        except OSError:
            time.sleep(0.1)
        else:
            break
    os.write(results, f"{url} {key}\n".encode())
    sys.stdin.read()
    os._exit(0)


def main(peer: str) -> None:
    from litellm.proxy.proxy_cli import run_server

    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": "openai/peer",
                "api_base": f"{peer}/{path}/v1",
                "api_key": "none",
            },
        }
        for name, path in MODELS.items()
    ]
    key = f"sk-{secrets.token_urlsafe(32)}"
    settings = {
        "model_list": models,
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": key},
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        # JSON is YAML.
        config.write_text(json.dumps(settings))
        url = f"http://127.0.0.1:{port}"
        threading.Thread(target=wait, args=[url, key], daemon=True).start()
        arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        run_server([*arguments, "--telemetry", "False"], standalone_mode=False)


if __name__ == "__main__":
    # Its access log, a line for each request, must not get in between the results.
    results = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    main(prepare())
