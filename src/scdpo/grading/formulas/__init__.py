"""Formulas parsed, evaluated at points and compared."""
