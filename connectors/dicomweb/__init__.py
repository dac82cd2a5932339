"""One PACS, asked over DICOMweb (DICOM PS3.18): what a study holds, its instances, and frames as rendered."""
