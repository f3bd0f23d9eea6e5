# How every extension says what it was built from (set by setup.py, compared in _core/__init__.py).
cdef extern from *:
    const char *CORE_SOURCE_HASH
