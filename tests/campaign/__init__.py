"""The fault campaign: damaged input, kills and full disks, and what the product makes of them.

    python -m tests.campaign                        # everything, about half an hour on two cores
    python -m tests.campaign audio kills --seed 7   # some parts
    python -m tests.campaign --quick                # a sample of every part, for CI

An input is survived when the program gives the right result, or says in one `error:` line what is
wrong, and the same command afterwards ends as if nothing had happened. It is not survived by a
traceback, a signal, a hang, memory without bound, a wrong result with exit status 0, or output of
a repeated run that differs from that of an undisturbed one.

Commands run in processes forked from one that has imported what is slow to import (`forked`,
`server`), and die at chosen writes (`watch`), so that a case costs a second and is the same twice.
"""
