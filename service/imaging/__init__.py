"""From a DICOM instance to a picture that a model, or a person, is shown."""
