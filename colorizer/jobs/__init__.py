"""This package runs work that outlives a page: training runs and their queue, sweeps, and archives of pictures."""
