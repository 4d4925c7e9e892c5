"""How sure a figure is: bootstrap by patient, permutation tests, DeLong, multiplicity."""
