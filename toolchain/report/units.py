"""Numbers as people read them. What was not measured is a dash."""

from __future__ import annotations

NOT_MEASURED = "-"


def format_bytes(value: float | None) -> str:
    """`512 B`, `110 KiB`, `4.91 MiB`."""
    if value is None:
        return NOT_MEASURED
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value:.0f} B"


def format_count(value: float | None) -> str:
    """`640`, `104 k`, `3.58 M`, `1.21 G`."""
    if value is None:
        return NOT_MEASURED
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def format_ms(value: float | None) -> str:
    """`0.0432 ms`, `1.92 ms`, `168 ms`."""
    return NOT_MEASURED if value is None else f"{_three_digits(value)} ms"


def format_seconds(value: float | None) -> str:
    """`0.01 s`, `13.5 s`, `2 min 05 s`."""
    if value is None:
        return NOT_MEASURED
    if value < 60:
        return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds:02d} s"


def format_share(value: float | None) -> str:
    """A share as percents: `98.4 %`. Only the whole is called 100 %."""
    if value is None:
        return NOT_MEASURED
    percent = min(100 * value, 99.99) if value < 1 else 100 * value
    return f"{_short(f'{percent:.2f}')} %"


def format_db(value: float | None) -> str:
    """`25.9 dB`; from 120 dB on, differences are float32's own rounding."""
    if value is None:
        return NOT_MEASURED
    return "exact" if value >= 120 else f"{value:.1f} dB"


def format_real(value: float | None) -> str:
    """A value of a tensor, three digits: `-0.0123`, `6.03`, `1.2e+04`."""
    return NOT_MEASURED if value is None else f"{value + 0.0:.3g}"


def format_score(value: float | None, name: str | None) -> str:
    """Accuracy as percents; a user's own metric as the number it is."""
    if name == "top-1" or value is None:
        return format_share(value)
    return f"{value:.4g}"


def format_amount(value: float | None, unit: str | None = None) -> str:
    """A plain number with a word that is counted: `1 step`, `0.25 points`."""
    if value is None:
        return NOT_MEASURED
    number = f"{value + 0.0:.4g}"
    return number if unit is None else f"{number} {unit}{'' if number == '1' else 's'}"


def format_change(ratio: float | None, more: str, less: str) -> str:
    """`3.69x smaller` for a ratio of float to deployed above 1, `1.11x larger` below it."""
    if not ratio:
        return ""
    if 0.995 < ratio < 1.005:
        return "the same"
    times, word = (ratio, more) if ratio > 1 else (1 / ratio, less)
    return f"{times:.2f}x {word}" if times < 10 else f"{times:.0f}x {word}"


def _three_digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _short(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
