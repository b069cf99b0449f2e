"""This package holds what people use: the command line, the figures and the pages."""
