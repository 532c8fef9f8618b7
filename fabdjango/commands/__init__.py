"""Pure builders: settings and facts to steps. Nothing here runs, reads a clock or opens a file."""
