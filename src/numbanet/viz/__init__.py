"""Pictures; they need the extra ``numbanet[viz]``."""

from numbanet.viz.curves import plot_history as plot_history
