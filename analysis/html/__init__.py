"""The report, a page of HTML."""
