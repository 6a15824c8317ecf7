"""What the pages say is true: every block of code in them runs."""
