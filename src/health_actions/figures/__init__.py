"""The report's charts, pictures and tables, in one style (matplotlibrc)."""
