"""What people use: the command line, the figures and the pages."""
