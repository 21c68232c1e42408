//! Plain loops, compiled once per instruction set.
//!
//! A [`Loop`] is written without intrinsics; [`run`] inlines it into a function that has the
//! processor's features enabled, where the compiler vectorises it to that width. The [`Simd`] it is
//! given proves those features, and has the few operations on registers that matrix products need.

#[cfg(target_arch = "x86_64")]
use crate::arch::x86;

/// A loop that the compiler can vectorise. `run` must be `#[inline(always)]`, and so must all it calls.
pub(crate) trait Loop {
    /// What the loop leaves behind.
    type Output;

    /// Executes the loop.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set. Values prove that the processor has it.
pub(crate) trait Simd: Copy {
    /// `f32` values in a vector.
    const LANES: usize;

    /// A vector.
    type Vector: Copy;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::Vector;

    /// The first values of `x`.
    fn load(self, x: &[f32]) -> Self::Vector;

    /// Writes to the first places of `x`.
    fn store(self, v: Self::Vector, x: &mut [f32]);

    /// `a · b + c` per lane.
    fn fused(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `a + b` per lane.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// The larger of `a` and `b` per lane.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a · b + c`, rounded once where the processor has such an instruction.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;
}

/// Runs `body` with the widest vectors of this processor.
#[inline]
pub(crate) fn run<L: Loop>(body: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(token) = x86::Avx512::detect() {
            return x86::run_avx512(token, body);
        }
        if let Some(token) = x86::Avx2::detect() {
            return x86::run_avx2(token, body);
        }
    }
    body.run(Portable)
}

/// `f32` values in a vector of this processor.
pub(crate) fn lanes() -> usize {
    struct Lanes;
    impl Loop for Lanes {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            S::LANES
        }
    }
    run(Lanes)
}

/// The target's baseline.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    const LANES: usize = 4;
    type Vector = [f32; 4];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 4] {
        [x; 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> [f32; 4] {
        [x[0], x[1], x[2], x[3]]
    }

    #[inline(always)]
    fn store(self, v: [f32; 4], x: &mut [f32]) {
        x[..4].copy_from_slice(&v);
    }

    #[inline(always)]
    fn fused(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        [0, 1, 2, 3].map(|i| self.mul_add(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [0, 1, 2, 3].map(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn max(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [0, 1, 2, 3].map(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }
}

/// Defines a function whose body is compiled for each instruction set. In `<'a, S, simd>`, `'a` is the
/// lifetime of borrowed arguments, `S` the type and `simd` the value of the instruction set.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$l:lifetime, $s:ident, $simd:ident>(
        $($arg:ident: $ty:ty),* $(,)?
    ) $body:block) => {
        $(#[$meta])*
        $vis fn $name<$l>($($arg: $ty),*) {
            struct Body<$l>(std::marker::PhantomData<&$l ()>, $($ty),*);
            impl<$l> $crate::isa::Loop for Body<$l> {
                type Output = ();
                #[inline(always)]
                fn run<$s: $crate::isa::Simd>(self, $simd: $s) {
                    let Body(_, $($arg),*) = self;
                    let _ = $simd;
                    $body
                }
            }
            $crate::isa::run(Body(std::marker::PhantomData, $($arg),*))
        }
    };
}
pub(crate) use kernel;

/// Sum of `x`, in as many partial sums as a vector has lanes.
#[inline(always)]
pub(crate) fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (one, mut sums) = (simd.splat(1.0), simd.splat(0.0));
    let mut chunks = x.chunks_exact(S::LANES);
    for chunk in chunks.by_ref() {
        sums = simd.fused(simd.load(chunk), one, sums);
    }
    let mut lanes = [0.0; 16];
    simd.store(sums, &mut lanes);
    lanes.iter().chain(chunks.remainder()).sum()
}

/// Sum of the products of `x` and `y`.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    let mut sums = simd.splat(0.0);
    let (mut xs, mut ys) = (x.chunks_exact(S::LANES), y.chunks_exact(S::LANES));
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        sums = simd.fused(simd.load(x), simd.load(y), sums);
    }
    let mut lanes = [0.0; 16];
    simd.store(sums, &mut lanes);
    let rest = xs
        .remainder()
        .iter()
        .zip(ys.remainder())
        .map(|(x, y)| x * y);
    lanes.into_iter().chain(rest).sum()
}

/// Largest of `x`; −∞ of nothing.
#[inline(always)]
pub(crate) fn max<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut most = simd.splat(f32::NEG_INFINITY);
    let mut chunks = x.chunks_exact(S::LANES);
    for chunk in chunks.by_ref() {
        most = simd.max(simd.load(chunk), most);
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    simd.store(most, &mut lanes);
    let all = lanes.iter().chain(chunks.remainder());
    all.fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}
