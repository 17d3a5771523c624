"""What is known before a run: the sentences that ComfyUI's validation shows at a node's inputs.

`validate_inputs` of a node names the inputs that it judges. ComfyUI then leaves their ranges to it, does not pass those that
a wire feeds, and writes what it returns at each of them.
"""


def told(*checks):
    """What `validate_inputs` returns: True, or the sentence of the first check that refuses.

    A check is (function, *arguments), and raises ValueError; with an argument of None, one that only a run knows, it is
    left out.
    """
    for check, *arguments in checks:
        if any(argument is None for argument in arguments):
            continue
        try:
            check(*arguments)
        except ValueError as error:
            return str(error)
        except TypeError:  # of a value that is no number ComfyUI itself says so
            continue
    return True
