"""ENGINE "fullhouse.db.mysql": MySQL and MariaDB through mysqlclient, or through PyMySQL where that is missing."""

try:
    import MySQLdb  # noqa: F401
except ImportError:
    import pymysql

    # Django asks for the version of the driver that PyMySQL stands in for.
    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
