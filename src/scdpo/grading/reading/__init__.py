"""Answers taken apart: lists, sets, named values, equations, families."""
