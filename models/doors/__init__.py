"""Doors to separators that other projects trained: one family a module, opened by :mod:`models.doors.uri`."""
