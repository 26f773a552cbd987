"""The reports' charts and pictures, in one style (matplotlibrc); each function draws one figure and returns it."""
