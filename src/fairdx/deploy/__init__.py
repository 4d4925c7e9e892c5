"""A finished model at work: new images in, scores and DICOM reports out. Prediction needs no torch."""
