"""Arrow's many text types made one: string, large_string, string_view, and dictionaries of them."""

import pyarrow as pa


def is_text(type_: pa.DataType) -> bool:
    """Whether a column of this type holds texts."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(type_) for is_kind in kinds)


def with_strings(array: pa.Array) -> pa.Array:
    """A text column as string, or as a dictionary of string if it is a dictionary."""
    if pa.types.is_dictionary(array.type):
        if pa.types.is_string(array.type.value_type):
            return array
        values = array.dictionary.cast(pa.string())
        return pa.DictionaryArray.from_arrays(array.indices, values, safe=False)
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
