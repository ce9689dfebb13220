"""Recognisers of products, one module each."""
