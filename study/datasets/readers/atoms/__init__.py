"""Structures as ASE's Atoms, one module for each kind of file they come from."""
