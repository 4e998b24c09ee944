"""Models of other packages, which extras of this one install, as potentials."""
