"""Messages of exceptions in one line."""

from __future__ import annotations


def one_line(error: BaseException | str) -> str:
    r"""Return the reason that an exception gives, in one line; its class's name where it gives none.

    >>> one_line(ValueError("first\nsecond")), one_line(KeyError())
    ('first', 'KeyError')
    """
    text = str(error).strip() or type(error).__name__
    # TorchScript puts its traceback before the reason
    return text.splitlines()[-1 if "Traceback of TorchScript" in text else 0]
