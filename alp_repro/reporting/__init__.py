"""What is read from results: tables, figures, the report."""
