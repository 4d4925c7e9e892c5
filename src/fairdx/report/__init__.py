"""Pages that people read: one self-contained HTML file each, with figures that need no network."""
