"""python -m services.pathwayd --config FILE"""

from services.pathwayd.app import create_app
from shared.runtime import serve

serve("pathwayd", create_app)
