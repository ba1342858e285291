"""The whole story on handwritten digits."""
