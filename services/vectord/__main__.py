"""`python -m services.vectord --config FILE`."""

from services.vectord.app import create_app
from shared.runtime import serve

serve("vectord", create_app)
