"""Translation of a talk while it is spoken."""
