"""python -m services.mcpd --config FILE, or --stdio for a client that starts it itself."""

import sys

if "--stdio" in sys.argv[1:]:
    from services.mcpd.stdio import main

    sys.exit(main())

from services.mcpd.app import create_app
from shared.runtime import serve

serve("mcpd", create_app)
