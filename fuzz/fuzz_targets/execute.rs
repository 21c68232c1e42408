//! Verifies bytes and runs what is accepted.

use std::cell::RefCell;

use ampoule_runtime::artifact::Step;
use ampoule_runtime::preprocess::{ImageView, PixelFormat, Preprocess};
use ampoule_runtime::{Artifact, DType, Isa, Session, TensorId};

/// Largest arena a fuzzed header may ask for.
const LIMIT: usize = 1 << 24;
/// Most element visits of a run, roughly: keeps single runs short.
const WORK: usize = 1 << 22;

thread_local! {
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Says whether the bytes were accepted.
pub fn verify_and_run(data: &[u8]) -> bool {
    FILE.with_borrow_mut(|file| {
        let bytes = aligned(file, data.len());
        bytes.copy_from_slice(data);
        let Ok(artifact) = Artifact::verify(bytes) else {
            return false;
        };
        read_everything(&artifact);
        let sizes: Vec<usize> = (0..artifact.banks())
            .map(|b| artifact.bank_bytes(b))
            .collect();
        if sizes.iter().sum::<usize>() > LIMIT || work(&artifact) > WORK {
            return true;
        }
        let expected = run(artifact, &sizes, Isa::Portable);
        for isa in Isa::ALL
            .into_iter()
            .filter(|i| *i != Isa::Portable && i.is_available())
        {
            compare(&artifact, isa, &expected, &run(artifact, &sizes, isa));
        }
        true
    })
}

/// The first steps compute with integers only: their results are equal everywhere, as long as none
/// reads what a step left in its working memory, which is each instruction set's own.
fn compare(artifact: &Artifact<'_>, isa: Isa, expected: &[Vec<u8>], got: &[Vec<u8>]) {
    let mut leftover = Leftover::new(artifact);
    let steps = artifact.steps().zip(expected.iter().zip(got)).enumerate();
    for (index, (step, (expected, got))) in steps {
        if !integers_only(artifact, &step) || leftover.reaches(artifact, &step) {
            return;
        }
        assert!(
            got == expected,
            "step {index} on {} differs from the portable code: {step:?}",
            isa.name()
        );
        leftover.after(artifact, &step);
    }
}

/// For each byte of the arena whether it is left over from working memory.
struct Leftover(Vec<Vec<u8>>);

impl Leftover {
    fn new(artifact: &Artifact<'_>) -> Self {
        let bank = |b| vec![0; artifact.bank_bytes(b)];
        Leftover((0..artifact.banks()).map(bank).collect())
    }

    fn of(&mut self, artifact: &Artifact<'_>, id: TensorId) -> Option<&mut [u8]> {
        let t = artifact.tensor(id).ok()?;
        let start = t.offset as usize;
        let bank = self.0.get_mut(usize::from(t.bank))?;
        bank.get_mut(start..start + t.bytes())
    }

    /// Whether a step reads such a byte, or keeps one as part of its result.
    fn reaches(&mut self, artifact: &Artifact<'_>, step: &Step) -> bool {
        // These may leave bytes of their result as they are.
        let partial = matches!(step, Step::Copy { .. } | Step::Attention(_));
        let result = partial.then(|| step.output());
        let mut read = step.inputs().into_iter().flatten().chain(result);
        read.any(|id| {
            self.of(artifact, id)
                .is_some_and(|bytes| bytes.contains(&1))
        })
    }

    fn after(&mut self, artifact: &Artifact<'_>, step: &Step) {
        for (id, mark) in [(Some(step.output()), 0), (step.scratch(), 1)] {
            if let Some(bytes) = id.and_then(|id| self.of(artifact, id)) {
                bytes.fill(mark);
            }
        }
    }
}

/// What every step's result is in a run from a generated input.
fn run(artifact: Artifact<'_>, sizes: &[usize], isa: Isa) -> Vec<Vec<u8>> {
    // A heap block per bank and no byte more: the address sanitizer sees what leaves it.
    let mut storage: Vec<Bank> = sizes.iter().map(|&n| Bank::new(n)).collect();
    let banks = storage.iter_mut().map(Bank::bytes);
    let mut session =
        Session::with_isa(artifact, banks, isa).expect("sizes and alignment are right");
    for i in 0..artifact.inputs().count() {
        let dtype = session.input(i).expect("there are as many").tensor.dtype;
        let bytes = session.input_bytes(i).expect("inputs are in the arena");
        ampoule_runtime::artifact::golden_input(i as u32, dtype, bytes);
    }
    let mut results = Vec::new();
    match session.run_observed(|o| results.push(o.bytes.to_vec())) {
        // Indices are data, which no verification can know.
        Ok(()) | Err(ampoule_runtime::Error::IndexOutOfRange(_)) => {}
        Err(e) => panic!("a verified artifact fails: {e}"),
    }
    results
}

/// Optional sections of whatever content.
fn read_everything(artifact: &Artifact<'_>) {
    let _ = artifact.labels().map(|l| l.count());
    let _ = artifact.meta();
    let _ = artifact.golden().map(|g| g.outputs.len()).sum::<usize>();
    let _ = artifact.tensor_name(1);
    if let Some(spec) = artifact.preprocess() {
        preprocess(&spec);
    }
    let _ = artifact
        .inputs()
        .chain(artifact.outputs())
        .filter(|io| io.name.is_some())
        .count();
}

/// Whatever preprocessing a file asks for works on a picture or is refused.
fn preprocess(spec: &Preprocess) {
    let pixels = [77; 12 * 9 * 3];
    let image = ImageView::packed(&pixels, 12, 9, PixelFormat::Rgb8).expect("a whole picture");
    let (Ok(scratch), out) = (spec.scratch_bytes(12, 9), spec.output_len()) else {
        return;
    };
    if spec.validate().is_ok() && scratch < LIMIT && out < WORK {
        let (mut scratch, mut out) = (vec![0; scratch], vec![0; out]);
        spec.run_u8(&image, &mut scratch, &mut out)
            .expect("the buffers are large enough");
        let table = spec.quantize_table(0.02, -14);
        let _ = spec.quantize_in_place(&mut out, &table);
    }
}

/// Whether a step has no float operand.
fn integers_only(artifact: &Artifact<'_>, step: &Step) -> bool {
    let ids = step.inputs().into_iter().flatten().chain([step.output()]);
    ids.into_iter()
        .all(|id| artifact.tensor(id).is_ok_and(|t| t.dtype != DType::F32))
}

/// An upper bound of a run's element visits: products, windows and reductions included.
fn work(artifact: &Artifact<'_>) -> usize {
    let elements = |id| artifact.tensor(id).map_or(0, |t| t.shape.elements());
    artifact.steps().fold(0usize, |sum, step| {
        let y = elements(step.output());
        let each = match step {
            Step::Conv(c) => {
                let last = artifact.tensor(c.x).map_or(1, |t| t.shape.last());
                c.window.taps().saturating_mul(last)
            }
            Step::Depthwise(c) => c.window.taps(),
            Step::Sparse { layer, .. } => layer.weights.len as usize,
            Step::Pool { x, window, .. } => window.taps().min(elements(x)),
            Step::MatMul { a, .. } => artifact.tensor(a).map_or(1, |t| t.shape.last()),
            _ => 1,
        };
        let read: usize = step.inputs().into_iter().flatten().map(elements).sum();
        sum.saturating_add(y.saturating_mul(each))
            .saturating_add(read)
    })
}

/// Memory of exactly `len` bytes at an aligned address.
struct Bank {
    start: *mut u8,
    layout: std::alloc::Layout,
}

impl Bank {
    fn new(len: usize) -> Self {
        let layout = std::alloc::Layout::from_size_align(len.max(1), 64).expect("a small size");
        // SAFETY: the size is not 0.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!start.is_null());
        Bank { start, layout }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block has this size and is borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout.
        unsafe { std::alloc::dealloc(self.start, self.layout) }
    }
}

/// `len` bytes at an aligned address, which end with the storage.
fn aligned(storage: &mut Vec<u8>, len: usize) -> &mut [u8] {
    storage.resize(len + 64, 0);
    let start = storage.as_ptr().align_offset(64);
    &mut storage[start..start + len]
}
