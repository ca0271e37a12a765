"""Parts compared with parts, leaves with leaves."""
