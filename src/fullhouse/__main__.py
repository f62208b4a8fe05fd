"""`python -m fullhouse` is `fullhouse`."""

import sys

from fullhouse.cli.main import main

sys.exit(main())
