"""Start Django's `runtests.py` with the MySQL driver that DJANGO_SUITE_JOB names.

python tools/django_suite_start.py .../tests/runtests.py ARGUMENTS
"""

import json
import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    if json.loads(os.environ["DJANGO_SUITE_JOB"])["driver"] == "PyMySQL":
        import pymysql

        pymysql.version_info = (2, 2, 1, "final", 0)  # of the driver that it stands in for; Django asks
        pymysql.install_as_MySQLdb()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)  # as if it had been started itself
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
