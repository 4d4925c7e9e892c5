"""Data sets: readers of sources on disk, the prepared form that everything else reads, the phantom."""
