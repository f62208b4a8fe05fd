"""The tests of the MySQL backend again, with PyMySQL in place of mysqlclient: a process can have only one of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbsupport import DRIVER

FOLDER = Path(__file__).parent
FILES = ["test_round_trips.py", "test_transactions.py", "test_connections.py", "test_outages.py"]


@pytest.mark.timeout(900)  # a whole run, each test of which has its own limit
def test_with_pymysql() -> None:
    if DRIVER == "pymysql":
        return  # this is the other process
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-k", "mysql", *(str(FOLDER / file) for file in FILES)],
        env={**os.environ, "TEST_MYSQL_DRIVER": "pymysql"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
