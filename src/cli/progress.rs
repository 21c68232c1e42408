//! Progress bars on standard error; hidden where that is no terminal.

use std::sync::Mutex;

use ampoule_quantize::pipeline::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str = "{msg:<12} {bar:30} {pos}/{len}  {eta} left";

/// A bar per stage, one at a time.
pub struct Bars {
    current: Mutex<Option<ProgressBar>>,
}

impl Bars {
    /// No bar yet.
    pub fn new() -> Self {
        Bars {
            current: Mutex::new(None),
        }
    }

    fn replace(&self, bar: Option<ProgressBar>) {
        if let Ok(mut current) = self.current.lock()
            && let Some(done) = std::mem::replace(&mut *current, bar)
        {
            done.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn begin(&self, stage: &str, total: usize) {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.set_message(stage.to_owned());
        self.replace(Some(bar));
    }

    fn advance(&self, done: usize) {
        if let Ok(current) = self.current.lock()
            && let Some(bar) = &*current
        {
            bar.set_position(done as u64);
        }
    }

    fn end(&self) {
        self.replace(None);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.end();
    }
}
