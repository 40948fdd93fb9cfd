"""The flags: their definitions and flagfiles, and the library's dataclasses made from them."""
