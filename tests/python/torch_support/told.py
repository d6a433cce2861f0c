"""What a call says to its user beside the result: warnings and log records alike."""

import logging
import warnings
from contextlib import contextmanager


class _Keep(logging.Handler):
    def __init__(self, said):
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record):
        self.said.append(record.getMessage())


@contextmanager
def listening():
    """`with listening() as said:` fills a list with the texts of warnings, and of log records of that level or above."""
    said = []
    handler = _Keep(said)
    logging.getLogger().addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield said
        finally:
            logging.getLogger().removeHandler(handler)
            said.extend(str(warning.message) for warning in caught)


def about(said, *words):
    """The texts that hold all the words, whatever their case."""
    return [text for text in said if all(word.lower() in text.lower() for word in words)]
