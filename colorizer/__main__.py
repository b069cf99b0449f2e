"""`python -m colorizer`."""

import sys

from colorizer.app.cli import main

sys.stdout.reconfigure(errors="surrogateescape")  # for names of files that are no text
sys.exit(main())
