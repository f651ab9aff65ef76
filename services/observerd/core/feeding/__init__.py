"""Which judged runs become evidence in the playbook, and which teach a refiner."""
