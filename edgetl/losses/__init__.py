"""A file for each loss, and the registry that knows them."""
