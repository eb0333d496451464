"""Functions in C that the printed graphs call; of each source, those that it needs.

`P_` stands for the prefix. They are C99 in 32 bits, read only what they are given, and allocate nothing;
of libm they call expf, logf, fabsf and sqrtf.
"""

import re

# Name to what it calls, and its text.
HELPERS: dict[str, tuple[tuple[str, ...], str]] = {
    # As XLA has it on CPUs: a quotient of polynomials, off by at most 4e-7.
    "tanh": ((), """
static float P_tanh(float x) {
    float s, p, q;
    x = x > 7.90531111f ? 7.90531111f : x < -7.90531111f ? -7.90531111f : x;
    s = x * x;
    p = -2.76076847e-16f;
    p = p * s + 2.00018790e-13f;
    p = p * s - 8.60467152e-11f;
    p = p * s + 5.12229709e-08f;
    p = p * s + 1.48572235e-05f;
    p = p * s + 6.37261929e-04f;
    p = p * s + 4.89352456e-03f;
    q = 1.19825839e-06f;
    q = q * s + 1.18534706e-04f;
    q = q * s + 2.26843463e-03f;
    q = q * s + 4.89352519e-03f;
    return x * p / q;
}
"""),
    "sigmoid": ((), """
static float P_sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}
"""),
    # Kahan's: what rounding loses in 1 + x, or e^x, is divided out.
    "log1p": ((), """
static float P_log1p(float x) {
    const float u = 1.0f + x;
    return u == 1.0f ? x : u > 3e38f ? logf(u) : logf(u) * (x / (u - 1.0f));
}
"""),
    "expm1": ((), """
static float P_expm1(float x) {
    const float u = expf(x);
    return u == 1.0f ? x : u > 3e38f ? u : u - 1.0f == -1.0f ? -1.0f : (u - 1.0f) * (x / logf(u));
}
"""),
    "softplus": (("log1p",), """
static float P_softplus(float x) {
    return (x < 0.0f ? 0.0f : x) + P_log1p(expf(-fabsf(x)));
}
"""),
    "relu": ((), """
static float P_relu(float x) {
    return x < 0.0f ? 0.0f : x;
}
"""),
    "leaky_relu": ((), """
static float P_leaky_relu(float x) {
    return x >= 0.0f ? x : 0.01f * x;
}
"""),
    "elu": (("expm1",), """
static float P_elu(float x) {
    return x > 0.0f ? x : P_expm1(x);
}
"""),
    "selu": (("expm1",), """
static float P_selu(float x) {
    return 1.05070099f * (x > 0.0f ? x : 1.67326324f * P_expm1(x));
}
"""),
    "gelu": (("tanh",), """
static float P_gelu(float x) {
    return x * (0.5f + 0.5f * P_tanh(0.797884561f * (x + 0.044715f * x * x * x)));
}
"""),
    "silu": (("sigmoid",), """
static float P_silu(float x) {
    return x * P_sigmoid(x);
}
"""),
    # A NaN as the first is kept.
    "min": ((), """
static float P_min(float x, float y) {
    return y < x ? y : x;
}
"""),
    "max": ((), """
static float P_max(float x, float y) {
    return x < y ? y : x;
}
"""),
    "min_int": ((), """
static int32_t P_min_int(int32_t x, int32_t y) {
    return y < x ? y : x;
}
"""),
    "max_int": ((), """
static int32_t P_max_int(int32_t x, int32_t y) {
    return x < y ? y : x;
}
"""),
    # Of an int32 that is too large the lowest bits, as everywhere.
    "add_int": ((), """
static int32_t P_add_int(int32_t x, int32_t y) {
    return (int32_t)((uint32_t)x + (uint32_t)y);
}
"""),
    "sub_int": ((), """
static int32_t P_sub_int(int32_t x, int32_t y) {
    return (int32_t)((uint32_t)x - (uint32_t)y);
}
"""),
    "mul_int": ((), """
static int32_t P_mul_int(int32_t x, int32_t y) {
    return (int32_t)((uint32_t)x * (uint32_t)y);
}
"""),
    "mod": ((), """
static int32_t P_mod(int32_t x, int32_t y) {
    const int32_t rest = x % y;
    return rest < 0 ? rest + y : rest;
}
"""),
    # A float beyond the integers, or NaN, is undefined in C: here it is the nearest, or the least.
    "to_int": ((), """
static int32_t P_to_int(float x) {
    return x >= 2147483648.0f ? INT32_MAX : x > -2147483648.0f ? (int32_t)x : INT32_MIN;
}
"""),
    "to_uint": ((), """
static uint32_t P_to_uint(float x) {
    return x >= 4294967296.0f ? UINT32_MAX : x > 0.0f ? (uint32_t)x : 0u;
}
"""),
    # The row of a table: in it, whatever the index is.
    "row": ((), """
static int32_t P_row(int32_t index, int32_t rows) {
    return index < 0 ? 0 : index < rows ? index : rows - 1;
}
"""),
    # y [m] += x [n] @ w [n, m], eight columns at a time, which stay in registers.
    "add_product": ((), """
static void P_add_product(const float *x, const WEIGHT *w, float *y, int32_t n, int32_t m) {
    int32_t i, j = 0;
    for (; j + 8 <= m; j += 8) {
        float a0 = y[j], a1 = y[j + 1], a2 = y[j + 2], a3 = y[j + 3];
        float a4 = y[j + 4], a5 = y[j + 5], a6 = y[j + 6], a7 = y[j + 7];
        for (i = 0; i < n; ++i) {
            const WEIGHT *row = w + i * m + j;
            const float v = x[i];
            a0 += v * row[0];
            a1 += v * row[1];
            a2 += v * row[2];
            a3 += v * row[3];
            a4 += v * row[4];
            a5 += v * row[5];
            a6 += v * row[6];
            a7 += v * row[7];
        }
        y[j] = a0;
        y[j + 1] = a1;
        y[j + 2] = a2;
        y[j + 3] = a3;
        y[j + 4] = a4;
        y[j + 5] = a5;
        y[j + 6] = a6;
        y[j + 7] = a7;
    }
    for (; j < m; ++j) {
        float a = y[j];
        for (i = 0; i < n; ++i) a += x[i] * w[i * m + j];
        y[j] = a;
    }
}
"""),
    # s, if it is there, has a scale for each column; b, if it is there, the bias.
    "linear": (("add_product",), """
static void P_linear(const float *x, const WEIGHT *w, const float *s, const float *b, float *y, int32_t rows,
                     int32_t n, int32_t m) {
    int32_t j;
    for (; rows > 0; --rows, x += n, y += m) {
        for (j = 0; j < m; ++j) y[j] = b && !s ? b[j] : 0.0f;
        P_add_product(x, w, y, n, m);
        if (s)
            for (j = 0; j < m; ++j) y[j] = y[j] * s[j] + (b ? b[j] : 0.0f);
    }
}
"""),
    # x [h, w, c], k [kh, kw, c, f], y [rows, columns, f]; of a window only what is in the image.
    "conv2d": (("add_product",), """
static void P_conv2d(const float *x, const WEIGHT *k, const float *s, const float *b, float *y, int32_t h,
                     int32_t w, int32_t c, int32_t kh, int32_t kw, int32_t f, int32_t stride, int32_t top,
                     int32_t left, int32_t rows, int32_t columns) {
    int32_t i, j, u, o;
    for (i = 0; i < rows; ++i) {
        for (j = 0; j < columns; ++j, y += f) {
            const int32_t at = j * stride - left;
            const int32_t first = at < 0 ? -at : 0, last = w - at < kw ? w - at : kw;
            for (o = 0; o < f; ++o) y[o] = b && !s ? b[o] : 0.0f;
            for (u = 0; u < kh; ++u) {
                const int32_t row = i * stride - top + u;
                if (row >= 0 && row < h && first < last)
                    P_add_product(x + (row * w + at + first) * c, k + (u * kw + first) * c * f, y,
                                  (last - first) * c, f);
            }
            if (s)
                for (o = 0; o < f; ++o) y[o] = y[o] * s[o] + (b ? b[o] : 0.0f);
        }
    }
}
"""),
    "max_pool2d": ((), """
static void P_max_pool2d(const float *x, float *y, int32_t h, int32_t w, int32_t c, int32_t side,
                         int32_t stride, int32_t top, int32_t left, int32_t rows, int32_t columns) {
    int32_t i, j, k, u, v;
    for (i = 0; i < rows; ++i) {
        for (j = 0; j < columns; ++j) {
            for (k = 0; k < c; ++k) {
                float most = -INFINITY;
                for (u = 0; u < side; ++u) {
                    for (v = 0; v < side; ++v) {
                        const int32_t row = i * stride - top + u, column = j * stride - left + v;
                        if (row >= 0 && row < h && column >= 0 && column < w) {
                            const float one = x[(row * w + column) * c + k];
                            most = most < one ? one : most;
                        }
                    }
                }
                *y++ = most;
            }
        }
    }
}
"""),
    "mean_pool2d": ((), """
static void P_mean_pool2d(const float *x, float *y, int32_t w, int32_t c, int32_t side, int32_t rows,
                          int32_t columns) {
    int32_t i, j, k, u, v;
    for (i = 0; i < rows; ++i) {
        for (j = 0; j < columns; ++j) {
            for (k = 0; k < c; ++k) {
                float sum = 0.0f;
                for (u = 0; u < side; ++u)
                    for (v = 0; v < side; ++v) sum += x[((i * side + u) * w + j * side + v) * c + k];
                *y++ = sum / (float)(side * side);
            }
        }
    }
}
"""),
    # x [batch, n, k] @ y [batch, k, m].
    "matmul": ((), """
static void P_matmul(const float *x, const float *y, float *z, int32_t batch, int32_t n, int32_t k,
                     int32_t m) {
    int32_t i, j, l;
    for (; batch > 0; --batch, y += k * m) {
        for (i = 0; i < n; ++i, x += k) {
            for (j = 0; j < m; ++j) {
                float sum = 0.0f;
                for (l = 0; l < k; ++l) sum += x[l] * y[l * m + j];
                *z++ = sum;
            }
        }
    }
}
"""),
    # These may write where they read.
    "layer_norm": ((), """
static void P_layer_norm(const float *x, const float *s, const float *b, float epsilon, float *y,
                         int32_t rows, int32_t n) {
    int32_t i;
    for (; rows > 0; --rows, x += n, y += n) {
        float mean = 0.0f, variance = 0.0f;
        for (i = 0; i < n; ++i) mean += x[i];
        mean /= (float)n;
        for (i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
        variance = sqrtf(variance / (float)n + epsilon);
        for (i = 0; i < n; ++i) y[i] = (x[i] - mean) / variance;
        if (s)
            for (i = 0; i < n; ++i) y[i] = y[i] * s[i] + b[i];
    }
}
"""),
    "softmax": ((), """
static void P_softmax(const float *x, float *y, int32_t rows, int32_t n) {
    int32_t i;
    for (; rows > 0; --rows, x += n, y += n) {
        float most = -INFINITY, sum = 0.0f;
        for (i = 0; i < n; ++i) most = most < x[i] ? x[i] : most;
        for (i = 0; i < n; ++i) sum += y[i] = expf(x[i] - most);
        for (i = 0; i < n; ++i) y[i] /= sum;
    }
}
"""),
    "log_softmax": ((), """
static void P_log_softmax(const float *x, float *y, int32_t rows, int32_t n) {
    int32_t i;
    for (; rows > 0; --rows, x += n, y += n) {
        float most = -INFINITY, sum = 0.0f;
        for (i = 0; i < n; ++i) most = most < x[i] ? x[i] : most;
        for (i = 0; i < n; ++i) sum += expf(x[i] - most);
        sum = logf(sum);
        for (i = 0; i < n; ++i) y[i] = x[i] - most - sum;
    }
}
"""),
    "cumsum": ((), """
static void P_cumsum(const float *x, float *y, int32_t rows, int32_t n) {
    int32_t i;
    for (; rows > 0; --rows, x += n, y += n) {
        float sum = 0.0f;
        for (i = 0; i < n; ++i) y[i] = sum += x[i];
    }
}
"""),
    "argmax": ((), """
static void P_argmax(const float *x, int32_t *y, int32_t rows, int32_t n) {
    int32_t i;
    for (; rows > 0; --rows, x += n, ++y) {
        *y = 0;
        for (i = 1; i < n; ++i)
            if (x[i] > x[*y]) *y = i;
    }
}
"""),
}  # fmt: skip

for _name in ("add_product", "linear", "conv2d"):
    _calls, _text = HELPERS[_name]
    HELPERS[_name] = _calls, _text.replace("WEIGHT", "float")
    _text = re.sub(r"P_(add_product|linear|conv2d)", r"P_\1_int8", _text.replace("WEIGHT", "int8_t"))
    HELPERS[f"{_name}_int8"] = tuple(f"{called}_int8" for called in _calls), _text


def text_of(names: set[str], prefix: str) -> str:
    """The functions of these names, and those that they call, before those that call them."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        calls, text = HELPERS[name]
        for called in calls:
            add(called)
        done.setdefault(name, text)

    for name in HELPERS:
        if name in names:
            add(name)
    return "".join(done.values()).replace("P_", f"{prefix}_").lstrip("\n")
