"""The configuration language: Samhain's rc syntax, its directives, and our settings from them."""
