"""`python -m services.storaged --config FILE`."""

from services.storaged.app import create_app
from shared.runtime import serve

serve("storaged", create_app)
