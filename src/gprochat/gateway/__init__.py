"""The gateway: makes deployments of this family usable by programs that speak OpenAI's API.

    async with gateway() as running:
        ...  # OpenAI's clients take running.base_url and running.key

`make_app` returns the same as an aiohttp application, to run under gunicorn or to mount.
"""

from gprochat_transports.extras import needs

with needs("gateway"):
    from .app import make_app
    from .deployments import Deployment, Models, models_from_environment, read_models
    from .lifecycle import Running, gateway

__all__ = [
    "Deployment",
    "Models",
    "Running",
    "gateway",
    "make_app",
    "models_from_environment",
    "read_models",
]
