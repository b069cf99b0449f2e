"""This package builds, trains, saves and measures networks. It is the package that may import TensorFlow."""
