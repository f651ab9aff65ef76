"""python -m services.embedd --config FILE"""

from services.embedd.app import create_app
from shared.runtime import serve

serve("embedd", create_app)
