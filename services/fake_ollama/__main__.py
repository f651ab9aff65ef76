"""python -m services.fake_ollama --config FILE"""

from services.fake_ollama.app import create_app
from shared.runtime import serve

serve("fake_ollama", create_app)
