"""What a checkpoint holds and where, as JSON: torch.distributed.checkpoint would keep it, and read it, as a pickle."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from captum_lipschitz._reading import open_regular, read_json
from captum_lipschitz._tensors import is_plain, read_torch_stream

INDEX = "index.json"
"""Name of the file in a checkpoint's folder."""

_DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


class IndexedWriter(FileSystemWriter):
    """Writes tensors as torch does, and ``index.json`` in the place of its pickle."""

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index, when all processes have written their tensors.

        Raises:
            TypeError: something else than tensors was to be kept, which torch would have pickled.
        """
        tensors = {name: _told(name, tensor) for name, tensor in metadata.state_dict_metadata.items()}
        places = [
            {
                "name": result.index.fqn,
                "at": list(result.index.offset or ()),
                "file": result.storage_data.relative_path,
                "offset": result.storage_data.offset,
                "length": result.storage_data.length,
            }
            for written in results
            for result in written
        ]
        with Path(self.path, INDEX).open("w", encoding="utf-8") as file:
            json.dump({"tensors": tensors, "places": places}, file)
            file.flush()
            os.fsync(file.fileno())


class IndexedReader(FileSystemReader):
    """Reads what ``IndexedWriter`` wrote; nothing in the files is run, and files outside the folder are not opened."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The index.

        Raises:
            OSError: there is none.
            ValueError: it is no such index.
        """
        try:
            content = read_json(Path(self.path, INDEX))
            tensors = {str(name): _tensor(told) for name, told in content["tensors"].items()}
            places = dict(map(_place, content["places"]))
        except (LookupError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise ValueError(f"{INDEX} is not what was written ({type(error).__name__}: {error})") from error
        return Metadata(state_dict_metadata=dict(tensors), storage_data=places)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read all tensors of a plan.

        Raises:
            OSError: a file cannot be read.
            ValueError: it holds something else.
        """
        for item in plan.items:
            file, offset, length = self.storage_data[item.storage_index]
            if item.type is not LoadItemType.TENSOR:
                raise ValueError(f"expected tensors alone, got {item.type} for {item.storage_index.fqn}")
            with open_regular(Path(self.path, file)) as stream:
                stream.seek(offset)
                tensor = read_torch_stream(io.BytesIO(stream.read(min(length, os.fstat(stream.fileno()).st_size))))
            if not isinstance(tensor, Tensor) or not is_plain(tensor):
                raise ValueError(f"expected a tensor for {item.storage_index.fqn} in {file}")
            for dimension, (start, count) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                tensor = tensor.narrow(dimension, start, count)
            target = planner.resolve_tensor(item).detach()
            if target.size() != tensor.size():
                raise ValueError(f"expected {tuple(target.size())} for {item.storage_index.fqn}, got another size")
            target.copy_(tensor)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done


def _told(name: str, tensor: TensorStorageMetadata | BytesStorageMetadata) -> dict[str, Any]:
    """What the index says of a tensor; ``_tensor`` reads it."""
    if not isinstance(tensor, TensorStorageMetadata):
        raise TypeError(f"expected tensors alone in a checkpoint, got something else for {name}")
    chunks = [[list(chunk.offsets), list(chunk.sizes)] for chunk in tensor.chunks]
    return {"dtype": str(tensor.properties.dtype), "size": list(tensor.size), "chunks": chunks}


def _tensor(told: Mapping[str, Any]) -> TensorStorageMetadata:
    chunks = [ChunkStorageMetadata(_size(offsets), _size(sizes)) for offsets, sizes in told["chunks"]]
    return TensorStorageMetadata(TensorProperties(dtype=_DTYPES[told["dtype"]]), _size(told["size"]), chunks)


def _place(told: Mapping[str, Any]) -> tuple[MetadataIndex, tuple[str, int, int]]:
    """A tensor's part, and the file, the byte and the length that it lies at."""
    file, (offset, length) = told["file"], _size([told["offset"], told["length"]])
    if not isinstance(file, str) or Path(file).name != file:
        raise ValueError(f"expected the name of a file beside {INDEX}, got {file!r}")
    return MetadataIndex(str(told["name"]), _size(told["at"])), (file, offset, length)


def _size(lengths: list[int]) -> torch.Size:
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError(f"expected whole numbers of at least 0 in {INDEX}, got something else")
    if math.prod(lengths) >= 2**63:
        raise ValueError(f"expected numbers in {INDEX} that a tensor can have, got greater ones")
    return torch.Size(lengths)
