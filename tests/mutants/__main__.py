import sys

from tests.mutants.machinery import main

sys.exit(main(sys.argv[1:]))
