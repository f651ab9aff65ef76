"""python -m services.chatd --config FILE"""

from services.chatd.app import create_app
from shared.runtime import serve

serve("chatd", create_app)
