"""Resources become dated, coded, citable facts. Pure: values in, values out."""
