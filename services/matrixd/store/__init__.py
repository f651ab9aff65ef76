"""Side effects of matrixd: the ledger of corpora, the builders, the playbook's log, the peers."""
