from .page import render_comparison as render_comparison
from .plots import plots_of as plots_of
from .plots import save_plots as save_plots
