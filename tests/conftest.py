"""MONAI whole, before the library imports its part: tests compare with all of it."""

import monai  # noqa: F401
