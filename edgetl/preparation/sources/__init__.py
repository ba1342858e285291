"""Where networks come from, a file for each kind."""
