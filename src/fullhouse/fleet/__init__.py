"""One budget for all hosts of a site, without a table or a proxy: the database's own session locks are the ledger."""
