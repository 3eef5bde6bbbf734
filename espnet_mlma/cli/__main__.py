"""`python -m espnet_mlma.cli` is `mlma`; processes that multiprocessing spawns import it too."""

from espnet_mlma.cli import main

if __name__ == "__main__":
    main()
