//! Panics of the parser become errors.
//!
//! tract treats a hostile model mostly with errors, but it indexes, asserts and unwraps in places that
//! such a model reaches. Everything that runs tract goes through [`guarded`], so that a panic there is an
//! error of import and prints nothing. Stack overflow and allocation failure abort the process and are
//! not covered; the checks in [`super::check`] keep models away from both.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::error::Problem;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, turning a panic and tract's error into a [`Problem`].
pub(super) fn guarded<T>(
    stage: &'static str,
    f: impl FnOnce() -> Result<T, Problem>,
) -> Result<T, Problem> {
    install_hook();
    let before = QUIET.replace(true);
    // The closure's captures are dropped or owned by the caller's error path; none is used after a panic.
    let result = catch_unwind(AssertUnwindSafe(f));
    QUIET.set(before);
    result.unwrap_or_else(|panic| {
        Err(Problem::Invalid {
            stage,
            what: message(&*panic),
        })
    })
}

/// Wraps the process's panic hook once, so that panics inside [`guarded`] print nothing and all others
/// print as before.
fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the parser gave up").to_owned()
}
