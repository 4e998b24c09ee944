"""The papers' claims, and what studies say of them."""
