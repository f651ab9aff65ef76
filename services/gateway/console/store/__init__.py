"""What the console keeps and reads: templates, static files, figures of the fleet, reports."""
