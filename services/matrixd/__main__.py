"""python -m services.matrixd --config FILE"""

from services.matrixd.app import create_app
from shared.runtime import serve

serve("matrixd", create_app)
