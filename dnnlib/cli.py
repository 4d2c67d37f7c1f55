"""What the commands share: option types with clear errors, a progress bar and one-line error reports."""

import errno
import functools
import re
import sys
from typing import Any, Callable, Iterable

import click
import tqdm
from click.core import ParameterSource

from .util import UserError

MAX_SEED = 2**32 - 1  # the limit of NumPy's RandomState


class Seeds(click.ParamType):
    """Parses ``0-3,7`` into [0, 1, 2, 3, 7].  Each part is a number or an ascending range; all numbers are at least 0."""

    name = "seeds"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[int]:
        if isinstance(value, (list, tuple)):
            return list(value)
        numbers = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
            if not match:
                self.fail(f"{value!r} is not a list of numbers and ranges such as 0-3,7", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"the range {part.strip()} runs backwards; write {last}-{first}", param, ctx)
            if last > MAX_SEED:
                self.fail(f"{last} is too large: seeds go up to {MAX_SEED}", param, ctx)
            numbers.extend(range(first, last + 1))
        return numbers


class Pair(click.ParamType):
    """Parses ``4x2`` into (4, 2): two integers of at least 1, width first."""

    def __init__(self, name: str = "WxH"):
        self.name = name

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", str(value))
        if not match or int(match[1]) < 1 or int(match[2]) < 1:
                self.fail(f"{value!r} is not of the form {self.name}, such as 2x2", param, ctx)
        return int(match[1]), int(match[2])


class Names(click.ParamType):
    """Parses ``a,b`` into ['a', 'b'], and ``none`` or an empty text into [].  Only `choices` are allowed, if given."""

    name = "names"

    def __init__(self, choices: Iterable[str] | None = None):
        self.choices = None if choices is None else list(choices)

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        if isinstance(value, (list, tuple)):
            return list(value)
        if value.strip().lower() in ("", "none"):
            return []
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if self.choices is not None and name not in self.choices:
                self.fail(f"{name!r} is not available; choose from: none, {', '.join(self.choices)}".rstrip(", "), param, ctx)
        return names


class FiniteFloat(click.FloatRange):
    """A float in a range.  Unlike click's ranges, it refuses infinities and nan."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number = super().convert(value, param, ctx)
        if number != number or number in (float("inf"), float("-inf")):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


def command(**kwargs: Any) -> Callable:
    """A click command that accepts ``_`` and ``-`` in option names alike and reports mistakes in one line.

    Exit codes: 2 for bad options; 1 for a UserError, an unusable file or too little memory; 130 for Ctrl-C.
    """
    settings = {"token_normalize_func": lambda text: text.replace("-", "_"), "show_default": True, "max_content_width": 120}

    def decorate(function: Callable) -> click.Command:
        return click.command(context_settings=settings, **kwargs)(one_line_errors(function))

    return decorate


def one_line_errors(function: Callable) -> Callable:
    """Wrap `function` so that a user's mistake ends the process with one line on stderr instead of a traceback."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            _exit(str(error))
        except KeyboardInterrupt:
            _exit("interrupted", code=130)
        except OSError as error:
            if error.filename is None and error.errno not in _DISK_ERRORS:
                raise
            _exit(f"{error.filename}: {error.strerror}" if error.filename else f"cannot write: {error.strerror}")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _exit(f"out of memory: {OUT_OF_MEMORY_ADVICE}")

    return wrapper


_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)  # raised by writes, without a file name
OUT_OF_MEMORY_ADVICE = (
    "use less at a time with --batch-gpu, --neural_rendering_resolution_final or a smaller --preset (training), "
    "with --shape-res, --nrr or --sample_mult (generating), or use --device cpu"
)


def only_with(switch: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A click callback that refuses an option if the (eager) switch `switch` is off."""

    def check(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE and not ctx.params[switch]:
            raise click.BadParameter(f"it has no effect without --{switch} true", ctx, param)
        return value

    return check


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that Python, the CPU allocator or CUDA has run out of memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _exit(message: str, code: int = 1) -> None:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(code)


def progress(iterable: Iterable | None = None, **kwargs: Any) -> tqdm.tqdm:
    """A tqdm bar with the project's settings: it shows rate and time left, and updates rarely without a terminal."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm.tqdm(iterable, mininterval=interval, dynamic_ncols=True, leave=kwargs.pop("leave", True), **kwargs)
