"""What no error and no log line tells: keys, passwords, conversations. Played for every adapter."""
