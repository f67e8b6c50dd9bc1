"""The lesson: mistakes, verification, picture, study."""
