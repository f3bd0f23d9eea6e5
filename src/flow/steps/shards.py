"""Shards: their names, and the keys under which Bytewax gives them to workers.

Bytewax gives a key to the worker that is the remainder of its hash (SipHash-1-3 of its bytes and 0xff, under a key of
zeros), and the partitions of a sink to the workers in turn. By their names alone, the first four shards would all be
deduplicated and rated by one of two workers. So the key of a shard is its name and a number that was searched for: the
smallest for which the hash is the shard's own number modulo 1680, which 1 to 8 workers divide. Shards then go to the
workers in turn, too, and what one worker has rated goes into a block there.
"""

_SPREAD = 1680

_NUMBERS = """
832 2219 1410 590 580 463 1891 663 2499 848 511 1064 1255 716 198 8069 518 545 1960 4305 1545 1250 1477 663 3101 1719
674 1820 1377 316 17 7226 252 739 892 2946 1102 398 2546 1429 2553 234 820 837 344 9520 1852 727 1996 978 2655 391 333
5031 956 2192 772 2102 6589 996 5446 7154 2058 2575 138 1388 379 3654 11 1711 787 5240 2613 912 309 1153 617 156 2653
8689 502 211 3200 1006 1725 391 5711 4808 4807 906 817 293 1698 4462 2536 316 26 1813 893 5247 2899 1575 246 1331 1547
1022 283 529 1358 1740 2 1446 1637 175 5 530 1585 0 1414 892 233 641 1194 675 3323 664 625 13590 113 106 1807 159 2516
3534 1919 1459 290 643 495 628 190 621 2490 995 7865 1954 2637 381 200 546 896 4029 4349 677 828 616 2943 245 589 3059
1675 1798 1049 363 663 1277 456 1612 2271 4572 597 444 1383 662 1863 2912 1357 933 7747 2323 9039 5472 1094 520 1490
1308 1123 476 706 4392 532 1850 1543 13 44 37 4247 2811 3125 1676 1747 999 4128 189 1563 288 64 864 1199 776 613 1550
2968 352 5094 5991 82 3317 71 347 510 78 1039 799 1974 1193 546 183 772 1619 3574 1916 3011 161 3448 1196 2958 266 833
656 362 134 4245 147 1493 8296 2672 288 8368 556 349 5142 310 839 290 1078
"""


def shard_name(number: int) -> str:
    """The name of a shard; it is part of every snapshot, so it never changes."""
    return f"shard-{number:03d}"


def shard_keys(shards: int, scheme: int) -> list[str]:
    """The Bytewax key of each shard, by its number; part of every snapshot too.

    `scheme` is the lineage's: 1 where it was begun with names for keys, 2 where they spread.
    """
    names = [shard_name(number) for number in range(shards)]
    if scheme == 1:
        return names
    return [f"{name}.{number}" for name, number in zip(names, _NUMBERS.split(), strict=False)]


def rated_where_written(scheme: int, workers: int) -> bool:
    """Whether with so many workers, of all processes, what one has rated goes into a block there."""
    return scheme == 2 and _SPREAD % workers == 0
