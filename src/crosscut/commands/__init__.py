"""The commands that talk to a server or start one, and what all commands share."""
