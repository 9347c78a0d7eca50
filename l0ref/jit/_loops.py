r"""Loops whose body is a function: turns for threads, numbers for vectors.

**Threads** (`share_out`). Numba has loops for them, of ``prange``. But it compiles what is in one
five times, each time with all that it calls, and once more where the loop may run on one thread
alone: for the kernels of a convnet that took half a minute. Here a turn is a function, which is
compiled once and run by any number of threads; the one loop of ``prange`` that there is,
`on_all_threads`, knows of it by its address.

**Vectors** (`in_vectors`). A compiler makes vectors of an ordinary loop over numbers as well. But
of many processors with registers of 512 bits it uses a half, as the first of them ran slower while
the whole was in use; and it computes one vector after the other. Of a gate's operations each waits
for the one before, several cycles, and a processor looks only so far ahead for others. With the
operations of `ABREAST` vectors side by side it has enough to do: draws take an eighth less time on
512 bits, and a quarter less on 256. So a loop of many operations a number says here that it wants
both, and that its numbers do not depend on each other; how each is computed is not changed.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import prange, types
from numba.core import cgutils, errors
from numba.extending import intrinsic

from ._vectors import ask_for_whole_registers

__all__ = ["SIGNATURE", "SYMBOL", "in_vectors", "on_all_threads", "share_out"]

ABREAST = 4
"""Vectors whose operations stand side by side in a loop of `in_vectors`."""

SYMBOL = "l0ref_on_all_threads"
"""By this name compiled code finds `on_all_threads`, wherever in memory a process has it."""

SIGNATURE = types.void(types.intp, types.intp, types.intp)

_WORD, _CODE, _ADDRESS = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
_SOME_TURNS = ir.FunctionType(ir.VoidType(), [_ADDRESS, _WORD, _WORD])


# --- threads --------------------------------------------------------------------------------------


def _share_out_in_python(many: bool, turn: Any, turns: int, args: tuple[Any, ...]) -> None:
    """Call ``turn(i, *args)`` for each i below `turns`, in any order, on many threads or on one.

    Parameters
    ----------
    many : bool
        Whether more than one thread may be used.
    turn : function
        Made with `inline`; it returns nothing.
    turns : int
    args : tuple
        What every turn is given.

    Raises
    ------
    Exception
        That of a turn, if one raises: ``MemoryError`` where there is no room for an array. The
        other turns are run all the same.
    """
    for i in range(turns):
        turn(i, *args)


def _threads_code(typing: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # What Numba's own loops ask how many threads there are.
        kind = ir.FunctionType(_WORD, [])
        return builder.call(
            cgutils.get_or_insert_function(builder.module, kind, "get_num_threads"), []
        )

    return types.intp(), emit


_threads: Any = intrinsic(_threads_code)


def _run_code(typing: Any, some_turns: Any, data: Any, start: Any, stop: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = builder.inttoptr(args[0], _SOME_TURNS.as_pointer())
        builder.call(function, [builder.inttoptr(args[1], _ADDRESS), *args[2:]])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), emit


_run: Any = intrinsic(_run_code)


def on_all_threads(some_turns, data, turns):  # type: ignore[no-untyped-def]
    """Give each thread an equal part of the turns: ``some_turns(data, start, stop)``."""
    threads = min(turns, _threads())
    for i in prange(threads):
        _run(some_turns, data, turns * i // threads, turns * (i + 1) // threads)


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return an array of which no count is kept: it is not freed while turns run.

    To count would take longer than a short turn, the more so as all threads would count in one
    place.
    """
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


def _unpacked(context: Any, builder: Any, args: Any, values: Any) -> list[Any]:
    """Return what a function is given of a tuple of that type."""
    return [
        _borrowed(context, builder, kind, builder.extract_value(values, i))
        for i, kind in enumerate(args.types)
    ]


def _compiled(context: Any, function: Any, args: Any) -> tuple[Any, Any]:
    """Compile a loop's body for the types of an index and of args; return it and its signature."""
    signature = function.get_call_type(context.typing_context, (types.intp, *args.types), {})
    if signature.return_type != types.none:  # nobody would give it back
        name = function.dispatcher.py_func.__name__
        raise errors.TypingError(f"{name} must return nothing, got {signature.return_type}")
    compiled = function.dispatcher.get_compile_result(signature)
    context.add_linking_libs([compiled.library])
    return compiled, signature


def _emit_some_turns(
    context: Any, module: Any, turn: Any, signature: Any, kinds: Any, data_type: Any
) -> Any:
    """Write the function that runs turns start to stop; `turn` is compiled for the signature.

    Return it, and the status of a turn: of the last that failed, code and exception are kept in the
    data, behind what turns are given.
    """
    name = module.get_unique_name(f"turns_of_{turn.fndesc.llvm_func_name}")
    function = ir.Function(module, _SOME_TURNS, name)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    data, start, stop = function.args
    data = builder.bitcast(data, data_type.as_pointer())
    packed = builder.load(cgutils.gep_inbounds(builder, data, 0, 0))
    args = _unpacked(context, builder, kinds, packed)
    with cgutils.for_range(builder, builder.sub(stop, start)) as loop:
        i = builder.add(start, loop.index)
        status, _ = context.call_internal_no_propagate(builder, turn.fndesc, signature, [i, *args])
        with builder.if_then(status.is_error, likely=False):
            builder.store(status.code, cgutils.gep_inbounds(builder, data, 0, 1))
            why = builder.bitcast(status.excinfoptr, _ADDRESS)
            builder.store(why, cgutils.gep_inbounds(builder, data, 0, 2))
    builder.ret_void()
    return function, status


@intrinsic
def _share_out(typing: Any, many: Any, turn: Any, turns: Any, args: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        many, _, turns, packed = values
        compiled, own = _compiled(context, turn, args)
        data_type = ir.LiteralStructType([packed.type, _CODE, _ADDRESS])
        function, status = _emit_some_turns(context, builder.module, compiled, own, args, data_type)
        data = cgutils.alloca_once(builder, data_type)
        builder.store(packed, cgutils.gep_inbounds(builder, data, 0, 0))
        code_at, why_at = (cgutils.gep_inbounds(builder, data, 0, k) for k in (1, 2))
        builder.store(_CODE(0), code_at)
        with builder.if_else(many) as (together, alone):
            with together:
                kind = ir.FunctionType(ir.VoidType(), [_WORD] * 3)
                share = cgutils.get_or_insert_function(builder.module, kind, SYMBOL)
                addresses = [builder.ptrtoint(pointer, _WORD) for pointer in (function, data)]
                builder.call(share, [*addresses, turns])
            with alone:
                builder.call(function, [builder.bitcast(data, _ADDRESS), _WORD(0), turns])
        code = builder.load(code_at)
        with builder.if_then(cgutils.is_true(builder, code), likely=False):
            why = builder.bitcast(builder.load(why_at), status.excinfoptr.type)
            own_status = status._replace(code=code, excinfoptr=why)
            context.call_conv.return_status_propagate(builder, own_status)
        return context.get_dummy_value()

    return types.void(types.boolean, turn, types.intp, args), emit


# --- vectors --------------------------------------------------------------------------------------


def _in_vectors_in_python(function: Any, n: int, args: tuple[Any, ...]) -> None:
    """Call ``function(i, *args)`` for each i below n, of several i at once.

    Parameters
    ----------
    function : function
        Made with `elementwise`: some operations without a branch, which read and write numbers
        of arrays that belong to i, and read none that another i writes.
    n : int
    args : tuple
        What it is given each time.
    """
    for i in range(n):
        function(i, *args)


class _Node(ir.values.MDValue):  # type: ignore[misc]
    """A note in LLVM's code that is like no other, and may name itself."""

    def __init__(self, module: Any) -> None:
        super().__init__(module, (), name=str(len(module.metadata)))

    def descr(self, buf: Any) -> None:
        buf += (f"distinct !{{ {', '.join(one.get_reference() for one in self.operands)} }}", "\n")

    __eq__, __hash__ = object.__eq__, object.__hash__


def _note_what_is_known(module: Any, call: Any, jump: Any) -> None:
    """Note that a loop's numbers are independent, and how many vectors are computed side by side.

    Otherwise the loop would look, when it runs, where its arrays lie, and compute its numbers one
    by one if two were near each other. Such code may round a b + c d in another place; then the
    last bits would hang on addresses.
    """
    group, loop = _Node(module), _Node(module)
    call.set_metadata("llvm.access.group", group)
    notes = (("llvm.loop.interleave.count", ir.IntType(32)(ABREAST)),
             ("llvm.loop.parallel_accesses", group))  # fmt: skip
    own = (module.add_metadata([ir.MetaDataString(module, name), what]) for name, what in notes)
    loop.operands = (loop, *own)
    jump.set_metadata("llvm.loop", loop)


@intrinsic
def _in_vectors(typing: Any, function: Any, n: Any, args: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, n, packed = values
        compiled, own = _compiled(context, function, args)
        ask_for_whole_registers(builder.function)
        given = _unpacked(context, builder, args, packed)
        before, zero = builder.block, _WORD(0)
        body, after = (builder.append_basic_block(f"vectors.{name}") for name in ("body", "after"))
        builder.cbranch(builder.icmp_signed(">", n, zero), body, after)
        builder.position_at_end(body)
        i = builder.phi(_WORD)
        i.add_incoming(zero, before)
        status, _ = context.call_internal_no_propagate(builder, compiled.fndesc, own, [i, *given])
        (call,) = (
            one
            for one in builder.block.instructions
            if getattr(getattr(one, "callee", None), "name", "") == compiled.fndesc.llvm_func_name
        )
        with builder.if_then(status.is_error, likely=False):
            context.call_conv.return_status_propagate(builder, status)
        following = builder.add(i, _WORD(1), flags=["nsw"])
        i.add_incoming(following, builder.block)
        jump = builder.cbranch(builder.icmp_signed("<", following, n), body, after)
        _note_what_is_known(builder.module, call, jump)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(function, types.intp, args), emit


share_out: Any
in_vectors: Any
if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    share_out, in_vectors = _share_out_in_python, _in_vectors_in_python
else:
    share_out, in_vectors = _share_out, _in_vectors
