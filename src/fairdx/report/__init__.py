"""What people read: plots, tables and self-contained HTML pages."""
