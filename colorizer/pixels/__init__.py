"""This package works on arrays and bytes, without any network: colour spaces, pictures, guided filter, metrics."""
