"""Django database backends that lend a connection to a request only for as long as it needs one."""
