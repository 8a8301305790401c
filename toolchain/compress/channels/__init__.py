"""Which channels belong together, and how they are cut out or split: what pruning and equalisation stand on."""
