"""The commands people type. They ask the running daemons and print; nothing is decided here."""
