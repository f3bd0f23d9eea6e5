"""Arrow's many text types made one: string, large_string, string_view, and dictionaries of them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BROKEN = (pa.ArrowInvalid, pa.ArrowIndexError)
"""What `check_memory` raises, depending on the type."""


def is_text(type_: pa.DataType) -> bool:
    """Whether a column of this type holds texts."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(type_) for is_kind in kinds)


def check_memory(array: pa.Array) -> None:
    """Raises one of BROKEN if following the array's offsets or codes would leave its memory, or a text is not UTF-8."""
    array.validate(full=True)
    if pa.types.is_dictionary(array.type):  # their own validity bitmap is not looked at above
        array.indices.validate(full=True)


def is_safe_text(array: pa.Array) -> bool:
    """Whether this is a text column that is safe to read, though what it says may not be UTF-8."""
    if not is_text(array.type):
        return False
    try:
        array.validate()
        if pa.types.is_dictionary(array.type):
            array.indices.validate(full=True)
            codes, array = pc.min_max(array.indices).as_py(), array.dictionary
            if codes["max"] is not None and not 0 <= codes["min"] <= codes["max"] < len(array):
                return False
        as_bytes(array).validate(full=True)
    except BROKEN:
        return False
    return True


def with_strings(array: pa.Array) -> pa.Array:
    """A text column as string, or as a dictionary of string if it is a dictionary."""
    if pa.types.is_dictionary(array.type):
        if pa.types.is_string(array.type.value_type):
            return array
        values = _strings(array.dictionary)
        return pa.DictionaryArray.from_arrays(array.indices, values, safe=False)
    return _strings(array)


def _strings(array: pa.Array) -> pa.Array:
    if pa.types.is_string_view(array.type) and array.null_count:
        # The cast follows the views of nulls too, which validation lets point anywhere: blank them first.
        nulls = array.is_null()
        _, view_buffer, *texts = array.buffers()
        views = np.frombuffer(view_buffer, np.uint64, 2 * len(array), 16 * array.offset).reshape(-1, 2).copy()
        views[nulls.to_numpy(zero_copy_only=False)] = 0
        blanked = pa.Array.from_buffers(array.type, len(array), [None, pa.py_buffer(views), *texts])
        return pc.if_else(nulls, None, blanked.cast(pa.string()))
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def plain(array: pa.Array) -> pa.Array:
    """A dictionary column (of anything but views) as its values; any other as it is."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def as_bytes(texts: pa.Array) -> pa.Array:
    """A plain text array as binary, nothing copied and nothing checked."""
    binary = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    return texts.view(binary[texts.type])
