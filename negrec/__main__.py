"""``python -m negrec`` is ``negrec``."""

import sys

from negrec.cli import main

sys.exit(main())
