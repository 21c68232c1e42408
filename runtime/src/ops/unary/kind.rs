//! The functions and their scalar truth.

use serde::{Deserialize, Serialize};

/// A real function of one variable.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum UnaryKind {
    /// `max(x, 0)`.
    Relu,
    /// `x`, times the parameter where negative.
    LeakyRelu(f32),
    /// `x`, and `parameter · (eˣ − 1)` where negative.
    Elu(f32),
    /// Self-normalising [`UnaryKind::Elu`].
    Selu,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `clamp(parameter₀ · x + parameter₁, 0, 1)`.
    HardSigmoid(f32, f32),
    /// `x · clamp(x/6 + 1/2, 0, 1)`.
    HardSwish,
    /// `x · sigmoid(x)`.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `x · Φ(x)` with the exact normal distribution.
    GeluErf,
    /// `x · Φ(x)` with the usual approximation by a hyperbolic tangent.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `eˣ`.
    Exp,
    /// Natural logarithm.
    Log,
    /// Square root.
    Sqrt,
    /// `−x`.
    Neg,
    /// `|x|`.
    Abs,
    /// `1 / x`.
    Reciprocal,
    /// Error function.
    Erf,
    /// `ln(1 + eˣ)`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// Largest integer not above `x`.
    Floor,
    /// Smallest integer not below `x`.
    Ceil,
    /// Nearest integer, ties to even.
    Round,
    /// `min(max(x, parameter₀), parameter₁)`; NaN passes.
    Clamp(f32, f32),
    /// `x · tanh(softplus(x))`.
    Mish,
    /// `x²`.
    Square,
    /// `1 / √x`.
    Rsqrt,
}

impl UnaryKind {
    /// Name for tables and messages.
    pub const fn name(self) -> &'static str {
        match self {
            UnaryKind::Relu => "Relu",
            UnaryKind::LeakyRelu(..) => "LeakyRelu",
            UnaryKind::Elu(..) => "Elu",
            UnaryKind::Selu => "Selu",
            UnaryKind::Sigmoid => "Sigmoid",
            UnaryKind::HardSigmoid(..) => "HardSigmoid",
            UnaryKind::HardSwish => "HardSwish",
            UnaryKind::Silu => "Silu",
            UnaryKind::Tanh => "Tanh",
            UnaryKind::GeluErf => "GeluErf",
            UnaryKind::GeluTanh => "GeluTanh",
            UnaryKind::QuickGelu => "QuickGelu",
            UnaryKind::Exp => "Exp",
            UnaryKind::Log => "Log",
            UnaryKind::Sqrt => "Sqrt",
            UnaryKind::Neg => "Neg",
            UnaryKind::Abs => "Abs",
            UnaryKind::Reciprocal => "Reciprocal",
            UnaryKind::Erf => "Erf",
            UnaryKind::Softplus => "Softplus",
            UnaryKind::Softsign => "Softsign",
            UnaryKind::Floor => "Floor",
            UnaryKind::Ceil => "Ceil",
            UnaryKind::Round => "Round",
            UnaryKind::Clamp(..) => "Clamp",
            UnaryKind::Mish => "Mish",
            UnaryKind::Square => "Square",
            UnaryKind::Rsqrt => "Rsqrt",
        }
    }

    /// The function's value. Transcendental ones are computed in double precision and rounded once.
    ///
    /// ```
    /// use ampoule_runtime::ops::unary::UnaryKind;
    /// assert_eq!(UnaryKind::HardSwish.eval(3.0), 3.0);
    /// assert_eq!(UnaryKind::Round.eval(2.5), 2.0);
    /// ```
    pub fn eval(self, x: f32) -> f32 {
        let d = f64::from(x);
        match self {
            UnaryKind::Relu => relu(x),
            UnaryKind::LeakyRelu(slope) => leaky_relu(x, slope),
            UnaryKind::Elu(alpha) if x < 0.0 => (f64::from(alpha) * libm::expm1(d)) as f32,
            UnaryKind::Elu(_) => x,
            UnaryKind::Selu if x < 0.0 => (SELU_SCALE * SELU_ALPHA * libm::expm1(d)) as f32,
            UnaryKind::Selu => (SELU_SCALE * d) as f32,
            UnaryKind::Sigmoid => sigmoid(d) as f32,
            UnaryKind::HardSigmoid(alpha, beta) => clamp(alpha * x + beta, 0.0, 1.0),
            UnaryKind::HardSwish => hard_swish(x),
            UnaryKind::Silu => product(d, sigmoid(d)) as f32,
            UnaryKind::Tanh => libm::tanh(d) as f32,
            UnaryKind::GeluErf => {
                let half = 0.5 * libm::erfc(-d * core::f64::consts::FRAC_1_SQRT_2);
                product(d, half) as f32
            }
            UnaryKind::GeluTanh => {
                let u = f64::from(GELU_TANH_SCALE) * (d + f64::from(GELU_TANH_CUBE) * d * d * d);
                product(d, sigmoid(2.0 * u)) as f32
            }
            UnaryKind::QuickGelu => product(d, sigmoid(f64::from(QUICK_GELU) * d)) as f32,
            UnaryKind::Exp => libm::exp(d) as f32,
            UnaryKind::Log => libm::log(d) as f32,
            UnaryKind::Sqrt => libm::sqrtf(x),
            UnaryKind::Neg => -x,
            UnaryKind::Abs => x.abs(),
            UnaryKind::Reciprocal => 1.0 / x,
            UnaryKind::Erf => libm::erf(d) as f32,
            UnaryKind::Softplus => softplus(d) as f32,
            UnaryKind::Softsign => x / (1.0 + x.abs()),
            UnaryKind::Floor => libm::floorf(x),
            UnaryKind::Ceil => libm::ceilf(x),
            UnaryKind::Round => libm::rintf(x),
            UnaryKind::Clamp(lo, hi) => clamp(x, lo, hi),
            UnaryKind::Mish => product(d, libm::tanh(softplus(d))) as f32,
            UnaryKind::Square => x * x,
            UnaryKind::Rsqrt => 1.0 / libm::sqrtf(x),
        }
    }
}

const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
pub(super) const GELU_TANH_SCALE: f32 = 0.797_884_56;
pub(super) const GELU_TANH_CUBE: f32 = 0.044_715;
pub(super) const QUICK_GELU: f32 = 1.702;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// `x · gate` that is 0, not NaN, where the gate of an infinite `x` is closed.
fn product(x: f64, gate: f64) -> f64 {
    if gate == 0.0 { 0.0 } else { x * gate }
}

#[inline(always)]
pub(super) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
pub(super) fn leaky_relu(x: f32, slope: f32) -> f32 {
    if x < 0.0 { slope * x } else { x }
}

#[inline(always)]
pub(super) fn hard_swish(x: f32) -> f32 {
    x * clamp(x * (1.0 / 6.0) + 0.5, 0.0, 1.0)
}

#[inline(always)]
pub(super) fn clamp(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}
