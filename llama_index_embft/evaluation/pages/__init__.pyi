from .charts import plots_of as plots_of
from .page import render_comparison as render_comparison
from .plots import save_plots as save_plots
