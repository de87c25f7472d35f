"""mcutune: search and certify multimodal models that must keep working when sensors fail.

Importing this package does nothing; see ARCHITECTURE.md for the house.
"""

__version__ = "0.1.0"
