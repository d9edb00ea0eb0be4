"""Derive the polynomial coefficients of csrc/simd/math.h (needs mpmath).

Run ``python tools/fit_polynomials.py`` and compare what it prints with the arrays there.
"""

import mpmath as mp
import numpy as np

mp.mp.dps = 50


def chebyshev(f, low, high, degree):
    """Near-minimax coefficients by interpolation at Chebyshev nodes, in extended precision."""
    coefficients, error = mp.chebyfit(f, [low, high], degree + 1, error=True)
    return coefficients[::-1], error


def rounded_in_turn(f, low, high, degree, dtype, fixed=()):
    """Coefficients least in the mean square of p(x) / f(x) - 1 on Chebyshev nodes of [low, high].

    Each is rounded before the next are found, which make up for it.
    """
    n = 60
    nodes = [
        (low + high + (high - low) * mp.cos(mp.pi * (2 * k + 1) / (2 * n))) / 2 for k in range(n)
    ]
    found = list(fixed)
    while len(found) <= degree:
        powers = range(len(found), degree + 1)
        basis = mp.matrix([[x**i / f(x) for i in powers] for x in nodes])
        rest = mp.matrix([1 - horner(found, x) / f(x) for x in nodes])
        found.append(float(dtype(float(mp.lu_solve(basis, rest)[0]))))
    return found


def report(name, coefficients, dtype, f, approximation, low, high):
    rounded = [dtype(float(c)) for c in coefficients]
    x = np.linspace(low, high, 4001)
    error = max(abs(approximation(rounded, mp.mpf(v)) - f(mp.mpf(v))) for v in x)
    print(f"{name}: largest error {float(error):.3g} with rounded coefficients")
    for c in rounded:
        print(f"    {c!r:s}, // {float(c).hex()}")


def horner(c, x):
    value = mp.mpf(0)
    for a in reversed(c):
        value = value * x + mp.mpf(float(a))
    return value


def report_pieces(name, f, degree, pieces, centred):
    """A polynomial for each k < 16 that serves within 1/4 of k / 2.

    They are polynomials of the distance to k / 2 if ``centred``. f is 0 at 0, and as good as 0
    from the last of ``pieces`` on.
    """
    quarter = mp.mpf(1) / 4
    table, error = np.zeros((degree + 1, 16), np.float32), 0
    for k in range(pieces):
        middle = mp.mpf(k) / 2
        origin = middle if centred else 0
        low = middle - quarter - origin if k else mp.mpf("1e-30")
        high = middle + quarter - origin
        if k:
            c, _ = chebyshev(lambda x, origin=origin: f(origin + x), low, high, degree)
        else:
            c, _ = chebyshev(lambda x: f(x) / x, low, high, degree - 1)
            c = [0, *c]
        table[:, k] = [float(a) for a in c]
        for x in mp.linspace(low, high, 401):
            error = max(error, abs(horner(table[:, k], x) - f(origin + x)))
    error = max(error, f((pieces - mp.mpf(1) / 2) / 2))
    print(f"{name}: largest error {float(error):.3g} with rounded coefficients")
    for row in table:
        print("    {" + ", ".join(f"{c!s}f" for c in row) + "},")


if __name__ == "__main__":
    exp2 = lambda x: mp.mpf(2) ** x  # noqa: E731
    for name, degree, dtype in (
        ("float32", 6, np.float32),
        ("float64", 11, np.float64),
        ("for bfloat16", 4, np.float32),
    ):
        c = rounded_in_turn(exp2, 0, 1, degree, dtype, fixed=(1.0,))
        report(f"exp2 {name}", c, dtype, exp2, horner, 0.0, 1.0)

    # x Phi(x) = max(x, 0) - u Phi(-u), u = |x|.
    report_pieces("GELU float32", lambda u: u * mp.ncdf(-u), 6, 15, centred=True)
    report_pieces("GELU for bfloat16", lambda u: u * mp.ncdf(-u), 3, 9, centred=False)

    # tanh(x) = x + x^3 t(x^2) for |x| <= 5/8: relative to tanh, the error of t counts as x^2.
    def t(y):
        x = mp.sqrt(y)
        return (mp.tanh(x) / x - 1) / y if y > mp.mpf("1e-12") else mp.mpf(-1) / 3

    for degree in (2, 3, 4):
        c, _ = chebyshev(t, 0, mp.mpf("0.390625"), degree)
        report(
            f"tanh float32, degree {degree}",
            c,
            np.float32,
            mp.tanh,
            lambda c, x: x + x**3 * horner(c, x * x),
            0,
            0.625,
        )
