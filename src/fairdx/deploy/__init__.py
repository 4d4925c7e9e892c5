"""A finished model at work: exports; scores of new images and DICOM reports, which need no torch."""
