"""`python -m services.catalogd --config FILE`."""

from services.catalogd.app import create_app
from shared.runtime import serve

if __name__ == "__main__":
    serve("catalogd", create_app)
