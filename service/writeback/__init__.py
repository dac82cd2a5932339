"""From a stored run to the FHIR resources that are filed. Pure: the same run gives the same bytes."""
