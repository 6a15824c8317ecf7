"""Tests of the core, one file for each of its files, and of the walls around it."""
