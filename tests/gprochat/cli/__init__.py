"""The command line: as a process where signals, pipes and terminals matter, else in this one."""
