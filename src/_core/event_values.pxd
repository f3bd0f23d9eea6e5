# The values an event's fields may have: a time with its offset, a quantity, a meter's name. Every function
# says no where it is not certain.

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from .strict_json cimport IS_INTEGER, IS_STRING, Value, is_digit
from .text_table cimport Text, equals, text_same

cdef enum:
    DIGITS_MAX = 18  # digits that always fit an int64; longer numbers are not decided here
    METER_NAME_MAX = 64
    MINUTE_SIZE = 17

cdef struct Minute:  # of the time read last: most events are of the same minute as the one before
    uint8_t text[MINUTE_SIZE]
    int64_t since_1970_s


cdef inline int number2(const uint8_t *p) noexcept nogil:
    return (p[0] - c'0') * 10 + p[1] - c'0' if is_digit(p[0]) and is_digit(p[1]) else -1


cdef inline int64_t days_before(int64_t year, int64_t month, int64_t day) noexcept nogil:
    # Days from 1970-01-01, Gregorian; years are counted from March, so that a leap day comes last.
    cdef int64_t y = year - (1 if month <= 2 else 0) + 400  # above 0 for the year 0000
    cdef int64_t from_march = (month + 9) % 12
    return y * 365 + y // 4 - y // 100 + y // 400 + (from_march * 153 + 2) // 5 + day - 1 - 719468 - 146097


cdef inline int month_days(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef inline bint read_offset(const uint8_t *p, int64_t size, int64_t *offset_s) noexcept nogil:
    cdef int hours, minutes
    if size == 1 and p[0] | 0x20 == c'z':
        offset_s[0] = 0
        return True
    if size != 6 or p[3] != c':' or (p[0] != c'+' and p[0] != c'-'):
        return False
    hours = number2(p + 1)
    minutes = number2(p + 4)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return False
    offset_s[0] = (hours * 60 + minutes) * 60
    if p[0] == c'-':
        offset_s[0] = -offset_s[0]
    return True


cdef inline bint read_minute(const uint8_t *p, Minute *known) noexcept nogil:
    # `YYYY-MM-DD(T|t| )HH:MM:`
    cdef int century, years, month, day, hour, minute
    if p[4] != c'-' or p[7] != c'-' or p[13] != c':' or p[16] != c':':
        return False
    if p[10] != c'T' and p[10] != c't' and p[10] != c' ':
        return False
    century = number2(p)
    years = number2(p + 2)
    month = number2(p + 5)
    day = number2(p + 8)
    hour = number2(p + 11)
    minute = number2(p + 14)
    if century < 0 or years < 0 or month < 1 or month > 12 or day < 1 or hour < 0 or minute < 0:
        return False
    years += century * 100
    if day > month_days(years, month) or hour > 23 or minute > 59:
        return False
    memcpy(known.text, p, MINUTE_SIZE)
    known.since_1970_s = days_before(years, month, day) * 86400 + hour * 3600 + minute * 60
    return True


cdef inline bint read_time(Text text, Minute *known, int64_t *time_us) noexcept nogil:
    # `YYYY-MM-DD(T|t| )HH:MM:SS[.f{1,30}](Z|z|+HH:MM|-HH:MM)`; False for anything else.
    cdef const uint8_t *p = text.at
    cdef const uint8_t *end = text.at + text.size
    cdef int second, digits = 0
    cdef int64_t fraction_us = 0, offset_s = 0
    if text.size < 20 or not (text_same(p, known.text, MINUTE_SIZE) or read_minute(p, known)):
        return False
    second = number2(p + 17)
    if second < 0 or second > 60:
        return False
    p += 19
    if p[0] == c'.':
        p += 1
        while p < end and is_digit(p[0]):
            if digits < 6:
                fraction_us = fraction_us * 10 + p[0] - c'0'
            digits += 1
            p += 1
        if digits < 1 or digits > 30:
            return False
        while digits < 6:
            fraction_us *= 10
            digits += 1
    if not read_offset(p, end - p, &offset_s):
        return False
    time_us[0] = (known.since_1970_s + second - offset_s) * 1000000 + fraction_us
    return True


cdef inline bint read_quantity(const Value *value, int64_t quantity_max, int64_t *quantity) noexcept nogil:
    cdef const uint8_t *p = value.text.at
    cdef const uint8_t *end = p + value.text.size
    cdef int64_t total = 0
    if (value.kind != IS_INTEGER and value.kind != IS_STRING) or p == end:
        return False
    while end - p > 1 and p[0] == c'0':
        p += 1
    if end - p > DIGITS_MAX:
        return False
    while p < end:
        if not is_digit(p[0]):  # a minus sign too: -0 is rare, all else negative is rejected
            return False
        total = total * 10 + (p[0] - c'0')
        p += 1
    quantity[0] = total
    return total <= quantity_max


cdef inline bint is_meter_name(Text name) noexcept nogil:
    cdef int64_t i
    cdef uint8_t c
    if name.size < 1 or name.size > METER_NAME_MAX or not c'a' <= name.at[0] <= c'z':
        return False
    for i in range(1, name.size):
        c = name.at[i]
        if not (c'a' <= c <= c'z' or is_digit(c) or c == c'_'):
            return False
    return not equals(name, b"requests", 8)
