"""The bundled model's recipe in a process of its own, which may die: `python tiny_recipe.py FILES ARGUMENT …`.

FILES: it dies with half of the FILES-th checkpoint written; 0: it lives.
"""

import sys

import torch
from small_run import die_in_save, find_package

if __name__ == "__main__":
    find_package()
    from opensora_comfy.training.tiny import run
    from opensora_comfy.training.tiny.__main__ import main

    torch.set_num_threads(1)
    run.EVERY = 2
    if int(sys.argv[1]):
        die_in_save(int(sys.argv[1]))
    del sys.argv[1]
    main()
