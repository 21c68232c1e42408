//! Mutations of an artifact that know its parts.

use ampoule_runtime::artifact::layout::{
    ALIGN, HEADER_LEN, IO_RECORD, SECTION_ENTRY, TENSOR_RECORD, field, section, u32_at,
};
use ampoule_runtime::artifact::{Attention, Blob, Conv, Step};
use ampoule_runtime::ops::Window;
use sha2::{Digest, Sha256};

/// Puts the length and the digest of a file right, so that verification goes on behind them.
pub fn seal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_LEN {
        return;
    }
    let len = (bytes.len() as u32).to_le_bytes();
    bytes[field::FILE_LEN..][..4].copy_from_slice(&len);
    let mut hash = Sha256::new();
    hash.update(&bytes[..field::DIGEST]);
    hash.update(&bytes[field::DIGEST + 32..]);
    bytes[field::DIGEST..][..32].copy_from_slice(&hash.finalize());
}

/// A file taken apart.
pub struct Container {
    header: Vec<u8>,
    sections: Vec<(u32, Vec<u8>)>,
    /// Steps, where all of them decode.
    steps: Vec<Step>,
}

impl Container {
    /// `None` when the section table leads out of the file.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let count = u32_at(bytes, field::SECTIONS)?.min(32) as usize;
        let mut sections = Vec::new();
        for i in 0..count {
            let at = HEADER_LEN + i * SECTION_ENTRY;
            let (kind, start, len) = (
                u32_at(bytes, at)?,
                u32_at(bytes, at + 4)?,
                u32_at(bytes, at + 8)?,
            );
            let content = bytes.get(start as usize..)?.get(..len as usize)?;
            sections.push((kind, content.to_vec()));
        }
        let (_, mut rest) = sections
            .iter()
            .find(|(kind, _)| *kind == section::STEPS)?
            .clone();
        let mut steps = Vec::new();
        for _ in 0..u32_at(bytes, field::STEPS)?.min(256) {
            let (step, tail) = postcard::take_from_bytes::<Step>(&rest).ok()?;
            steps.push(step);
            rest = tail.to_vec();
        }
        Some(Container {
            header: bytes.get(..HEADER_LEN)?.to_vec(),
            sections,
            steps,
        })
    }

    /// The file again, with its counts, length and digest put right.
    pub fn bytes(mut self) -> Vec<u8> {
        let encoded = self
            .steps
            .iter()
            .flat_map(|s| postcard::to_allocvec(s).unwrap_or_default());
        let encoded: Vec<u8> = encoded.collect();
        if let Some((_, content)) = self.section(section::STEPS) {
            *content = encoded;
        }
        let steps = self.steps.len() as u32;
        self.header[field::STEPS..][..4].copy_from_slice(&steps.to_le_bytes());
        let count = self.sections.len() as u32;
        self.header[field::SECTIONS..][..4].copy_from_slice(&count.to_le_bytes());
        let mut out = self.header;
        let mut at = HEADER_LEN + self.sections.len() * SECTION_ENTRY;
        let mut body = Vec::new();
        for (kind, content) in &self.sections {
            let start = at.next_multiple_of(ALIGN);
            body.resize(body.len() + start - at, 0);
            body.extend(content);
            at = start + content.len();
            for word in [*kind, start as u32, content.len() as u32, 0] {
                out.extend(word.to_le_bytes());
            }
        }
        out.extend(body);
        seal(&mut out);
        out
    }

    /// One random change.
    pub fn mutate(&mut self, random: &mut Random) {
        match random.below(16) {
            0 => self.bank(random),
            1..=4 => self.tensor(random),
            5 => self.port(random),
            6 => self.content(random),
            7 => self.order(random),
            _ => self.step(random),
        }
    }

    fn section(&mut self, kind: u32) -> Option<&mut (u32, Vec<u8>)> {
        self.sections.iter_mut().find(|(k, _)| *k == kind)
    }

    /// The size of an arena bank.
    fn bank(&mut self, random: &mut Random) {
        let at = field::BANKS + 4 * random.below(8);
        let size = random.below(1 << 14) as u32;
        self.header[at..at + 4].copy_from_slice(&size.to_le_bytes());
    }

    /// A field of a tensor record, by itself or as another tensor has it.
    fn tensor(&mut self, random: &mut Random) {
        const FIELDS: [(usize, usize); 16] = [
            (0, 1),
            (1, 1),
            (2, 1),
            (3, 1),
            (4, 4),
            (8, 4),
            (12, 4),
            (16, 4),
            (20, 4),
            (24, 4),
            (28, 4),
            (32, 4),
            (36, 4),
            (40, 2),
            (42, 2),
            (0, TENSOR_RECORD),
        ];
        let Some((_, records)) = self.section(section::TENSORS) else {
            return;
        };
        let count = records.len() / TENSOR_RECORD;
        if count == 0 {
            return;
        }
        let (to, from) = (random.below(count), random.below(count));
        let (at, len) = FIELDS[random.below(FIELDS.len())];
        let (to, from) = (to * TENSOR_RECORD + at, from * TENSOR_RECORD + at);
        let value = match random.below(4) {
            0 if len < 5 => {
                let old = u64::from(records[to]);
                let small = match random.below(4) {
                    0 => old + 1,
                    1 => old.wrapping_sub(1),
                    2 => random.below(16) as u64,
                    _ => 64 * random.below(64) as u64,
                };
                small.to_le_bytes()[..len].to_vec()
            }
            1 if len < 5 => random.edge().to_le_bytes()[..len].to_vec(),
            _ => records[from..from + len].to_vec(),
        };
        records[to..to + len].copy_from_slice(&value);
    }

    /// A byte of an input or output record.
    fn port(&mut self, random: &mut Random) {
        let Some((_, records)) = self.section(section::IO) else {
            return;
        };
        if records.is_empty() {
            return;
        }
        if random.below(4) == 0 {
            let copy = records[..IO_RECORD.min(records.len())].to_vec();
            records.extend(copy);
            let count = (records.len() / IO_RECORD) as u32;
            self.header[field::IOS..][..4].copy_from_slice(&count.to_le_bytes());
            return;
        }
        let at = random.below(records.len());
        records[at] = random.below(8) as u8;
    }

    /// Bytes of any section.
    fn content(&mut self, random: &mut Random) {
        let number = random.below(self.sections.len());
        let Some((_, content)) = self.sections.get_mut(number).filter(|s| !s.1.is_empty()) else {
            return;
        };
        for _ in 0..1 + random.below(8) {
            let at = random.below(content.len());
            content[at] = match random.below(3) {
                0 => random.below(256) as u8,
                1 => content[at] ^ (1 << random.below(8)),
                _ => random.edge() as u8,
            };
        }
    }

    /// Steps swapped, repeated or left out.
    fn order(&mut self, random: &mut Random) {
        let count = self.steps.len();
        if count == 0 {
            return;
        }
        let (i, j) = (random.below(count), random.below(count));
        match random.below(3) {
            0 => self.steps.swap(i, j),
            1 => self.steps[i] = self.steps[j],
            _ => drop(self.steps.remove(i)),
        }
    }

    /// A field of a step.
    fn step(&mut self, random: &mut Random) {
        let count = self.steps.len();
        if count == 0 {
            return;
        }
        let i = random.below(count);
        let other = self.steps[random.below(count)];
        let tensors = self
            .section(section::TENSORS)
            .map_or(1, |s| s.1.len() / TENSOR_RECORD)
            .max(1);
        let id = random.below(tensors) as u16;
        match &mut self.steps[i] {
            Step::Conv(c) | Step::Depthwise(c) => conv(c, other, id, random),
            Step::Binary(b) => match random.below(8) {
                0 => b.a = id,
                1 => b.b = id,
                2 => b.y = id,
                3 => b.zero = random.edge() as i32,
                4 => b.lo = random.float(),
                5 => b.hi = random.float(),
                6 => b.scale = random.float(),
                _ => b.table = random.flip(b.table),
            },
            Step::Table { x, y, .. } | Step::Unary { x, y, .. } | Step::Convert { x, y } => {
                *if random.below(2) == 0 { x } else { y } = id;
            }
            Step::Pool {
                x,
                y,
                window: w,
                include_pad,
                ..
            } => match random.below(4) {
                0 => *x = id,
                1 => *y = id,
                2 => *include_pad ^= true,
                _ => window(w, random),
            },
            Step::Reduce { x, y, axes, .. } => match random.below(3) {
                0 => *x = id,
                1 => *y = id,
                _ => *axes = random.below(256) as u8,
            },
            Step::Softmax { x, y, log, table } => match random.below(4) {
                0 => *x = id,
                1 => *y = id,
                2 => *log ^= true,
                _ => *table = random.flip(*table),
            },
            Step::LayerNorm { x, y, epsilon, .. } => match random.below(3) {
                0 => *x = id,
                1 => *y = id,
                _ => *epsilon = random.float(),
            },
            Step::Copy { x, y, map } => {
                let d = random.below(6);
                let stride = random.below(64) as i32 - 32;
                match random.below(8) {
                    0 => *x = id,
                    1 => *y = id,
                    2 => map.dims[d] = random.below(64) as u32,
                    3 => map.x_strides[d] = stride,
                    4 => map.y_strides[d] = stride,
                    5 => map.x_start = random.below(256) as u32,
                    6 => map.y_start = random.below(256) as u32,
                    _ => map.dims[d] = random.edge() as u32,
                }
            }
            Step::Fill { y, bits } => match random.below(2) {
                0 => *y = id,
                _ => *bits = random.edge() as u32,
            },
            Step::Resize { x, y, .. } => *if random.below(2) == 0 { x } else { y } = id,
            Step::MatMul { a, b, y } => match random.below(3) {
                0 => *a = id,
                1 => *b = id,
                _ => *y = id,
            },
            Step::Attention(a) => attention(a, id, random),
            Step::Gather {
                x,
                indices,
                y,
                axis,
            } => match random.below(4) {
                0 => *x = id,
                1 => *indices = id,
                2 => *y = id,
                _ => *axis = random.below(8) as u8,
            },
            Step::ArgMax { x, y, axis, last } => match random.below(4) {
                0 => *x = id,
                1 => *y = id,
                2 => *axis = random.below(8) as u8,
                _ => *last ^= true,
            },
            Step::Match { k, y, matching, .. } => match random.below(6) {
                0 => *k = id,
                1 => *y = id,
                2 => matching.merged = random.edge() as u32,
                3 => matching.protected = random.edge() as u32,
                4 => matching.tokens = random.edge() as u32,
                _ => matching.token = random.edge() as u32,
            },
            Step::Merge {
                x,
                places,
                sizes,
                y,
            } => match random.below(5) {
                0 => *x = id,
                1 => *places = id,
                2 => *sizes = Some(id),
                3 => *sizes = None,
                _ => *y = id,
            },
            Step::WeightedAttention {
                attention: a,
                sizes,
            } => match random.below(4) {
                0 => *sizes = id,
                _ => attention(a, id, random),
            },
            Step::Sparse {
                layer,
                starts,
                quads,
            } => match random.below(4) {
                0 => *starts = random.blob(*starts),
                1 => *quads = random.blob(*quads),
                _ => conv(layer, other, id, random),
            },
            _ => (),
        }
        // Variants that a seed has none of come from the encoding.
        if random.below(4) == 0 {
            let mut bytes = postcard::to_allocvec(&self.steps[i]).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let at = random.below(bytes.len());
            bytes[at] = random.below(128) as u8;
            if let Ok(step) = postcard::from_bytes(&bytes) {
                self.steps[i] = step;
            }
        }
    }
}

fn attention(a: &mut Attention, id: u16, random: &mut Random) {
    let size = match random.below(4) {
        0 => random.edge() as u32,
        _ => random.below(16) as u32,
    };
    let g = &mut a.geometry;
    match random.below(12) {
        0 => a.q = id,
        1 => a.k = id,
        2 => a.v = id,
        3 => a.y = id,
        4 => a.scratch = id,
        5 => a.multiplier = random.float(),
        6 => g.outer[random.below(4)] = size,
        7 if random.below(2) == 0 => g.queries[random.below(2)] = size,
        7 => g.keys[random.below(2)] = size,
        8 if random.below(2) == 0 => g.depth = size,
        8 => g.width = size,
        9 => {
            a.bias = match a.bias {
                Some((blob, layout)) if random.below(2) == 0 => Some((random.blob(blob), layout)),
                _ => None,
            }
        }
        _ => {
            let view = match random.below(4) {
                0 => &mut g.q,
                1 => &mut g.k,
                2 => &mut g.v,
                _ => &mut g.y,
            };
            match random.below(3) {
                0 => view.start = size,
                1 => view.outer[random.below(4)] = size,
                _ => view.token[random.below(2)] = size,
            }
        }
    }
}

fn conv(c: &mut Conv, other: Step, id: u16, random: &mut Random) {
    match random.below(12) {
        0 => c.x = id,
        1 => c.y = id,
        2 | 3 => window(&mut c.window, random),
        4 => c.zero = random.edge() as i32,
        5 => c.lo = random.float(),
        6 => c.hi = random.float(),
        7 => c.table = random.flip(c.table),
        8 => {
            c.residual = match c.residual {
                Some((t, _)) if random.below(2) == 0 => Some((t, random.float())),
                _ => Some((id, 0.5)),
            }
        }
        9 => c.scratch = (random.below(3) != 0).then_some(id),
        10 => c.weights = random.blob(c.weights),
        _ => {
            if let Step::Conv(o) | Step::Depthwise(o) | Step::Sparse { layer: o, .. } = other {
                let y = c.y;
                *c = Conv { y, ..o };
            }
        }
    }
}

fn window(w: &mut Window, random: &mut Random) {
    let value = match random.below(8) {
        0 => random.edge() as u16,
        _ => random.below(6) as u16,
    };
    match random.below(4) {
        0 => w.kernel[random.below(2)] = value,
        1 => w.stride[random.below(2)] = value,
        2 => w.dilation[random.below(2)] = value,
        _ => w.pad[random.below(4)] = value,
    }
}

/// A small generator; the seed comes from the fuzzer.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u32) -> Self {
        Random(u64::from(seed) << 1 | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n.max(1)
    }

    /// A number at the edge of some type.
    fn edge(&mut self) -> i64 {
        let power = 1i64 << self.below(33);
        [power, power - 1, -power, power + 1, 0][self.below(5)]
    }

    fn float(&mut self) -> f32 {
        let bits = self.below(1 << 31) as u32;
        [
            0.0,
            -0.0,
            1.0,
            -128.0,
            127.0,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::INFINITY,
            f32::NAN,
            f32::from_bits(bits),
        ][self.below(10)]
    }

    fn flip(&mut self, blob: Option<Blob>) -> Option<Blob> {
        match (blob, self.below(2)) {
            (Some(b), 0) => Some(self.blob(b)),
            (Some(_), _) => None,
            (None, _) => Some(Blob {
                offset: 64 * self.below(64) as u32,
                len: [256, 1024][self.below(2)],
            }),
        }
    }

    fn blob(&mut self, blob: Blob) -> Blob {
        match self.below(3) {
            0 => Blob {
                offset: 64 * self.below(64) as u32,
                ..blob
            },
            1 => Blob {
                len: self.below(4096) as u32,
                ..blob
            },
            _ => Blob {
                offset: blob.offset,
                len: self.edge() as u32,
            },
        }
    }
}
