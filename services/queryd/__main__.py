"""Runs queryd: `python -m services.queryd --config config/lakehouse.toml`."""

from services.queryd.app import create_app
from shared.runtime import serve

if __name__ == "__main__":
    serve("queryd", create_app)
