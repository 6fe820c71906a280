"""The commands of ``numbanet``: a module each, with ``add_arguments`` and ``run``, and what they share."""
