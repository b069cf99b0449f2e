"""How a network is built, trained, saved and measured. The room that imports TensorFlow."""
