//! What came out, as a table and as JSON.

use serde::Serialize;

/// One model on one target.
#[derive(Debug, Serialize)]
pub struct Row {
    pub target: &'static str,
    pub triple: &'static str,
    pub model: &'static str,
    pub builds: Option<bool>,
    /// Whether it ran to its end under emulation.
    pub runs: Option<bool>,
    /// Whether outputs are those of this processor.
    pub identical: Option<bool>,
    #[serde(flatten)]
    pub measured: Measured,
    /// Why something was not done, or failed.
    pub note: Option<String>,
}

/// What a run tells.
#[derive(Debug, Default, Serialize)]
pub struct Measured {
    /// Instruction sets used.
    pub isa: String,
    /// Hash of the outputs.
    pub hash: String,
    /// Bytes in flash of the least program that runs the model, without the model: `targets/cortex-m/src/bin/size.rs`.
    pub flash: Option<usize>,
    /// Bytes of arena, found to be enough.
    pub arena: Option<usize>,
    /// Bytes of stack, measured.
    pub stack: Option<usize>,
    /// Instructions of one inference, exact.
    pub instructions: Option<u64>,
}

/// How far a target got with a model.
#[derive(Debug)]
pub enum Outcome {
    Skipped(String),
    NotBuilt(String),
    Built(String),
    Failed(String),
    Ran(Measured),
}

impl Row {
    /// The row for an outcome; `expected` is the hash on this processor.
    pub fn new(
        target: &'static str,
        triple: &'static str,
        model: &'static str,
        outcome: Outcome,
        expected: &str,
    ) -> Self {
        let mut row = Row {
            target,
            triple,
            model,
            builds: None,
            runs: None,
            identical: None,
            measured: Measured::default(),
            note: None,
        };
        match outcome {
            Outcome::Skipped(why) => row.note = Some(why),
            Outcome::NotBuilt(why) => (row.builds, row.note) = (Some(false), Some(why)),
            Outcome::Built(why) => (row.builds, row.note) = (Some(true), Some(why)),
            Outcome::Failed(why) => {
                (row.builds, row.runs, row.note) = (Some(true), Some(false), Some(why));
            }
            Outcome::Ran(measured) => {
                (row.builds, row.runs) = (Some(true), Some(true));
                row.identical = Some(measured.hash == expected);
                row.measured = measured;
            }
        }
        row
    }

    /// Whether nothing that was tried went wrong.
    pub fn is_good(&self) -> bool {
        [self.builds, self.runs, self.identical]
            .iter()
            .all(|r| *r != Some(false))
    }
}

/// Prints the rows.
pub fn print(rows: &[Row]) {
    let header = [
        "target",
        "model",
        "builds",
        "runs",
        "identical",
        "isa",
        "flash",
        "arena",
        "stack",
        "instructions",
    ];
    let mut lines = vec![header.map(String::from)];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..header.len())
        .map(|i| {
            lines
                .iter()
                .map(|l| l[i].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for line in &lines {
        let cell = |i: usize| match i {
            0..=5 => format!("{:<1$}", line[i], widths[i]),
            _ => format!("{:>1$}", line[i], widths[i]),
        };
        let text: Vec<String> = (0..line.len()).map(cell).collect();
        println!("{}", text.join("  ").trim_end());
    }
    for row in rows {
        if let Some(note) = &row.note {
            println!("{}, {}: {note}", row.target, row.model);
        }
    }
}

fn cells(row: &Row) -> [String; 10] {
    let tick = |b: Option<bool>| match b {
        None => "-".into(),
        Some(true) => "yes".into(),
        Some(false) => "NO".into(),
    };
    let m = &row.measured;
    [
        row.target.into(),
        row.model.into(),
        tick(row.builds),
        tick(row.runs),
        tick(row.identical),
        m.isa.clone(),
        grouped(m.flash.map(|n| n as u64)),
        grouped(m.arena.map(|n| n as u64)),
        grouped(m.stack.map(|n| n as u64)),
        grouped(m.instructions),
    ]
}

/// A number in groups of three digits.
fn grouped(n: Option<u64>) -> String {
    let Some(n) = n else { return "-".into() };
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(' ');
        }
        text.push(c);
    }
    text
}
