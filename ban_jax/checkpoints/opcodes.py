"""What the operations of a pickle do to the stack, by `pickletools`."""

import pickletools

BY_CODE = {ord(op.code): op for op in pickletools.opcodes}
CALLING = {"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "BUILD": 2}
"""Where the callable lies, from the top of the stack."""
_APART = frozenset(
    "POP DUP GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE STACK_GLOBAL INST "
    "EXT1 EXT2 EXT4 STOP".split()
)
PLAIN = {
    op.name: (len(op.stack_before), len(op.stack_after))
    for op in pickletools.opcodes
    if op.name not in _APART
    and op.name not in CALLING
    and pickletools.markobject not in (*op.stack_before, *op.stack_after)
}
"""How many objects an operation takes and makes, where it does no more to the stack."""
