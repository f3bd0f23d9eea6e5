"""placeholder"""


def verify() -> None:
    """placeholder"""
