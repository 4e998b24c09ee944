"""Unit conversion factors to eV, Å and eV/Å; readers convert once, when reading."""

KJ_PER_MOL = 0.010364269656262174
"""eV in one kJ/mol (CODATA 2018)."""

KCAL_PER_MOL = 4.184 * KJ_PER_MOL
"""eV in one (thermochemical) kcal/mol."""

NANOMETRE = 10.0
"""Å in one nm."""

KJ_PER_MOL_PER_NM = KJ_PER_MOL / NANOMETRE
"""eV/Å in one kJ/mol/nm."""

BOHR = 0.529177210903
"""Å in one Bohr radius (CODATA 2018)."""

HARTREE = 27.211386245988
"""eV in one Hartree (CODATA 2018)."""

HARTREE_PER_BOHR = HARTREE / BOHR
"""eV/Å in one Hartree/Bohr."""
