"""A finished model at work: exports, scores of new images, DICOM reports. Prediction needs no torch."""
