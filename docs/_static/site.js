// Search results come with an excerpt of each page, which a browser does not let a page read that
// is itself a file.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
