"""This package loads training images: CIFAR-10, folders and files of pictures, and the built-in data sets."""
