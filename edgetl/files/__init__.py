"""What lies on a disk: atomic writes, archives, hashes, schemas; what a path is."""
