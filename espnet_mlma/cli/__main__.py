from espnet_mlma.cli import main

main()
