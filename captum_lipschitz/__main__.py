"""``python -m captum_lipschitz`` is ``captum-lipschitz``."""

import sys

from captum_lipschitz.cli import main

if __name__ == "__main__":
    sys.exit(main())
