"""`python -m services.ingestd --config FILE`."""

from services.ingestd.app import create_app
from shared.runtime import serve

if __name__ == "__main__":
    serve("ingestd", create_app)
