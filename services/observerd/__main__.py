"""python -m services.observerd --config FILE"""

from services.observerd.app import create_app
from shared.runtime import serve

serve("observerd", create_app)
