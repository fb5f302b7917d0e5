"""Files of tensors that nobody vouches for: nothing in them is run, and none can keep a reader for ever."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from captum_lipschitz._reading import open_regular

_ZIP, _PICKLE = b"PK", b"\x80"  # what files of torch.save begin with: since torch 1.6, and before
_HEAD_PICKLES = 5  # of the older form: three that say what it is, the content, the storages' names
_MOST_PICKLED = 2**26  # bytes of a pickle that describes tensors; those of a large network are some hundred thousand
_MOST_VISITS = 2**24  # parts of values that are used again; of a large network some hundred thousand
_REMEMBERING = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_RECALLING = ("GET", "BINGET", "LONG_BINGET", "DUP")
_GROWING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_MARK = [0]


class UnsafeFileError(ValueError):
    """A file whose reading might not end, or would take more memory than the file has bytes for."""


class _UnreadableError(Exception):
    """No pickle from here on."""


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        OSError: it is no file, or cannot be read.
        SafetensorError, ValueError, KeyError, AttributeError: it holds something else.
    """
    open_regular(path).close()
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def read_torch(path: str | Path) -> Any:
    """What ``torch.save`` wrote, where it is of tensors and plain values, on the CPU.

    Besides refusing code, as ``weights_only`` does, this looks at the pickle first: a few hundred bytes of tuples
    within tuples would make torch's reader hash them for years.

    Raises:
        OSError: it is no file, or cannot be read.
        UnsafeFileError: reading it might not end.
        Exception: whatever torch raises on a file that is none of its own.
    """
    with open_regular(path) as file:
        return read_torch_stream(file)


def read_torch_stream(file: BinaryIO) -> Any:
    """``read_torch`` of an open file, or of bytes in memory."""
    begins = file.read(2)
    file.seek(0)
    if begins == _ZIP:
        with suppress(_UnreadableError):
            _check_pickle(io.BytesIO(_described(file)))
    elif begins[:1] == _PICKLE:
        with suppress(_UnreadableError):  # torch stops there too, and says why
            for _ in range(_HEAD_PICKLES):
                _check_pickle(file)
    else:  # also the tar archives of torch before 0.1
        raise ValueError(f"expected one that begins as those of torch.save do, got {begins!r}")
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is numbers one after another on the CPU, as many as its shape says.

    Files can also hold sparse tensors, ones without a storage, and ones of any size that repeat a single number.
    """
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _described(file: BinaryIO) -> bytes:
    """The pickle of a zip archive, read as torch reads it: Python's own zip reader may see another archive."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in zipfile.ZipFile(file).infolist()):
        raise UnsafeFileError("its parts are compressed, as torch.save never does, and may be of any size")
    file.seek(0)
    content: bytes = torch._C.PyTorchFileReader(file).get_record("data.pkl")  # noqa: SLF001 - what torch.load uses
    return content


def _check_pickle(file: BinaryIO) -> None:
    """Raise unless the values in the next pickle have a bounded number of parts, shared ones counted as often as used.

    That number is what hashing, comparing or copying them costs. Each value is a list of its number of parts alone, so
    that one which grows later has grown wherever it is used.
    """
    stack: list[list[int]] = []
    memo: dict[int, list[int]] = {}
    shared = 0
    for opcode, argument in _operations(file):
        name = opcode.name
        if name in _REMEMBERING:
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1] if stack else [1]
        elif name in _RECALLING:
            stack.append(memo.get(argument, [1]) if name != "DUP" else stack[-1] if stack else [1])
            shared += stack[-1][0]
            if shared > _MOST_VISITS:
                raise UnsafeFileError(f"values in it are used again and again, more than {_MOST_VISITS} parts of them")
        elif name == "MARK":
            stack.append(_MARK)
        else:
            taken = _popped(stack, opcode)
            changed = taken[-1] if name in _GROWING and taken else [1]
            changed[0] += sum(value[0] for value in taken if value is not changed)
            stack += [changed] * len(opcode.stack_after)


def _operations(file: BinaryIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    start, operations = file.tell(), pickletools.genops(file)
    while True:
        try:
            opcode, argument, _ = next(operations)
        except StopIteration:
            return
        except (ValueError, OverflowError, MemoryError) as error:
            raise _UnreadableError from error
        if file.tell() - start > _MOST_PICKLED:
            raise UnsafeFileError(f"its description has more than {_MOST_PICKLED} bytes")
        yield opcode, argument


def _popped(stack: list[list[int]], opcode: pickletools.OpcodeInfo) -> list[list[int]]:
    """What an operation takes from the stack, the uppermost first."""
    taken: list[list[int]] = []
    for kind in reversed(opcode.stack_before):
        if kind.name == "stackslice":
            while stack and stack[-1] is not _MARK:
                taken.append(stack.pop())
        elif stack:
            taken.append(stack.pop())
    return taken
