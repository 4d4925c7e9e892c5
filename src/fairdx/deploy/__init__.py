"""A finished model at work: exports, and of new images scores and DICOM reports. Prediction needs no torch."""
