"""How an experiment starts: from flags alone, with what the pipelines log on the screen."""

from absl import app, logging


def run(main):
    """Call ``main()`` with the flags parsed; anything else on the command line ends the script with its usage."""

    def flags_only(argv):
        if len(argv) > 1:
            raise app.UsageError(f"Expected flags only. Received: {argv[1:]}")
        logging.set_verbosity(logging.INFO)
        main()

    app.run(flags_only)
