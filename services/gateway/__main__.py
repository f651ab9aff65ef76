"""Runs the gateway: `python -m services.gateway --config config/lakehouse.toml`."""

from services.gateway.app import create_app
from shared.runtime import serve

if __name__ == "__main__":
    serve("gateway", create_app)
