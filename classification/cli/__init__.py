"""One module a command: flags in, call, exit code out."""
