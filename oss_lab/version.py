"""The version of oss_lab; packaging reads it from here."""

__version__ = "0.1.0"
