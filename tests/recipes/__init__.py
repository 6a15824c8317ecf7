"""The recipes of docs/recipes/, against services that fail as well as those that do not."""
