//! What is seen of a run while it goes on.
//!
//! On a terminal a bar; elsewhere a line every half minute and one per epoch, on standard error. With
//! `--json` a line per epoch on standard output.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ampoule::distill::train::{EpochReport, Observer, Record, StepReport};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::headline;
use crate::cli::error::Failure;
use crate::cli::output::{note, print_json_line};

const TEMPLATE: &str = "{bar:24} {pos}/{len} steps  {msg}";
/// Time between lines where there is no terminal.
const LINE: Duration = Duration::from_secs(30);
/// Share of a step in the figures that are shown.
const SMOOTHING: f64 = 0.05;

/// Where a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A bar or lines, on standard error.
    Text,
    /// A line of JSON per epoch, on standard output.
    Json,
    /// Nowhere.
    Nothing,
}

/// The view.
pub struct Live {
    /// The user asked to stop.
    stop: Arc<AtomicBool>,
    /// Asked (again), nothing is saved: at first, and after training, nothing would be lost.
    idle: Arc<AtomicBool>,
    view: View,
    bar: Option<ProgressBar>,
    total: u64,
    shown: Shown,
    lined: Instant,
    last: u64,
}

/// Moving averages.
#[derive(Default)]
struct Shown {
    loss: Option<f64>,
    right: Option<f64>,
    speed: Option<f64>,
    /// Of a whole step, waiting for data included.
    step_seconds: Option<f64>,
    at: Option<Instant>,
}

impl Live {
    /// Listens for Ctrl-C, too.
    pub fn new(view: View) -> Result<Self, Failure> {
        let (stop, idle) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        for signal in [SIGINT, SIGTERM] {
            let heard = flag::register_conditional_shutdown(signal, 130, Arc::clone(&idle))
                .and_then(|_| flag::register(signal, Arc::clone(&stop)))
                .and_then(|_| flag::register(signal, Arc::clone(&idle)));
            heard.map_err(|e| Failure::Usage(format!("cannot listen for Ctrl-C: {e}")))?;
        }
        Ok(Live {
            stop,
            idle,
            view,
            bar: None,
            total: 0,
            shown: Shown::default(),
            lined: Instant::now(),
            last: 0,
        })
    }

    /// Says what is going to happen.
    pub fn introduce(&self, text: &str) {
        if self.view == View::Text {
            note(text);
        }
    }

    /// Removes the bar.
    pub fn finish(&mut self) {
        self.idle.store(true, Ordering::Relaxed);
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }

    fn left(&self) -> String {
        let steps = self.total.saturating_sub(self.last) as f64;
        match self.shown.step_seconds {
            Some(seconds) => {
                let left = Duration::from_secs_f64((seconds * steps).min(1e9));
                format!("{} left", HumanDuration(left))
            }
            None => String::new(),
        }
    }
}

impl Shown {
    fn take(&mut self, report: &StepReport) {
        let follow = |mean: &mut Option<f64>, new: f64| {
            *mean = Some(mean.map_or(new, |m| m + SMOOTHING * (new - m)));
        };
        if let Some(loss) = report.measures.loss {
            follow(&mut self.loss, loss);
        }
        let right = report.measures.get("accuracy");
        if let Some(right) = right.or(report.measures.get("agreement")) {
            follow(&mut self.right, right);
        }
        let now = Instant::now();
        if let Some(before) = self.at.replace(now) {
            let seconds = (now - before).as_secs_f64();
            follow(&mut self.step_seconds, seconds);
            follow(&mut self.speed, report.samples as f64 / seconds.max(1e-9));
        }
    }

    fn text(&self) -> String {
        let loss = self.loss.map(|l| format!("loss {l:.3}"));
        let right = self.right.map(|r| format!("{:.1} % right", 100.0 * r));
        let speed = self.speed.map(|s| format!("{s:.0} images/s"));
        let parts: Vec<String> = [loss, right, speed].into_iter().flatten().collect();
        parts.join("  ")
    }
}

impl Observer for Live {
    fn start(&mut self, step: u64, total: u64) {
        self.idle.store(false, Ordering::Relaxed);
        (self.total, self.last) = (total, step);
        if step > 0 && self.view != View::Nothing {
            self.line(&format!("going on after step {step} of {total}"));
        }
        if std::io::stderr().is_terminal() && self.view == View::Text {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(Some(total), target);
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style);
            }
            bar.set_position(step);
            self.bar = Some(bar);
        }
        self.lined = Instant::now();
    }

    fn step(&mut self, report: &StepReport) {
        self.last = report.step;
        self.shown.take(report);
        let epoch = report.epoch + 1;
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(format!(
                "epoch {epoch}  {}  {}",
                self.shown.text(),
                self.left()
            ));
        } else if self.view == View::Text && self.lined.elapsed() >= LINE {
            self.lined = Instant::now();
            self.line(&format!(
                "step {}/{}  epoch {epoch}  {}  {}",
                report.step,
                self.total,
                self.shown.text(),
                self.left()
            ));
        }
    }

    fn epoch(&mut self, report: &EpochReport) {
        // Measuring is no part of a step.
        self.shown.at = None;
        match self.view {
            View::Text => {}
            View::Json => {
                // A closed standard output is told of at the end.
                let _ = print_json_line(&Record::Epoch(report.clone()));
                return;
            }
            View::Nothing => return,
        }
        let measured = headline(&report.measures);
        let measured = measured.map_or(String::new(), |m| format!("measured: {m}  "));
        self.lined = Instant::now();
        self.line(&format!(
            "epoch {}  {}  {measured}{}",
            report.epoch + 1,
            self.shown.text(),
            self.left()
        ));
    }

    fn note(&mut self, text: &str) {
        self.line(&format!("warning: {text}"));
    }

    fn stops(&mut self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
