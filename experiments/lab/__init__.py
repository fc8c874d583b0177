"""What the experiments share: protocols as functions ``run(config, …) -> record``, data sets and networks by name."""
