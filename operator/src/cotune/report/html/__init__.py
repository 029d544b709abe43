"""The report as one HTML page: no script, no request, readable on paper and in the dark."""
