"""This package loads saved models and colorizes pictures with them."""
