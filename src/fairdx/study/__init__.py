"""Studies: many runs, and the tables and figures that sum them up."""
